// SPDX-License-Identifier: BSD-2-Clause
// The part of the kernel's iommufd interface that Ferry speaks, and the device calls that belong to
// it; no header of the distribution has it yet. As in uapi.h, with `size` in the place of argsz.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

#include "hw/vfio/uapi.h"

namespace ferry::vfio::uapi {

// Device, opened by its own node.
inline constexpr unsigned long kDeviceBindIommufd = request(18), kDeviceAttachPt = request(19),
                               kDeviceDetachPt = request(20);
struct BindIommufd {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct AttachPt {
    uint32_t argsz, flags, pt_id;  // in: IOAS or page table; out: what it is attached to
};
struct DetachPt {
    uint32_t argsz, flags;
};

namespace iommufd {

constexpr unsigned long call(unsigned number) {
    return _IO(';', 0x80 + number);
}
inline constexpr unsigned long kDestroy = call(0), kIoasAlloc = call(1), kIoasMap = call(5),
                               kIoasUnmap = call(6), kHwptAlloc = call(9), kGetHwInfo = call(10),
                               kSetDirtyTracking = call(11), kGetDirtyBitmap = call(12);

struct Destroy {
    uint32_t size, id;
};
struct IoasAlloc {
    uint32_t size, flags, out_ioas_id;
};
struct IoasMap {
    uint32_t size, flags, ioas_id, reserved;
    uint64_t user_va, length, iova;
};
inline constexpr uint32_t kMapFixedIova = 1 << 0, kMapWriteable = 1 << 1, kMapReadable = 1 << 2;
struct IoasUnmap {
    uint32_t size, ioas_id;
    uint64_t iova, length;  // length: out, what was unmapped
};
struct HwptAlloc {
    uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len;
    uint64_t data_uptr;
    uint32_t fault_id, reserved2;
};
inline constexpr uint32_t kHwptDirtyTracking = 1 << 1;
struct HwInfo {
    uint32_t size, flags, dev_id, data_len;
    uint64_t data_uptr;
    uint32_t out_data_type;
    uint8_t out_max_pasid_log2, reserved[3];
    uint64_t out_capabilities;
};
inline constexpr uint64_t kHwCapDirtyTracking = 1 << 0;
struct SetDirtyTracking {
    uint32_t size, flags, hwpt_id, reserved;
};
inline constexpr uint32_t kDirtyTrackingEnable = 1 << 0;
struct GetDirtyBitmap {
    uint32_t size, hwpt_id, flags, reserved;
    uint64_t iova, length, page_size;
    uint64_t data;  // pointer to 64-bit words; bits are only ever set
};
inline constexpr uint32_t kDirtyBitmapNoClear = 1 << 0;

static_assert(sizeof(Destroy) == 8 && sizeof(IoasAlloc) == 12 && sizeof(IoasMap) == 40);
static_assert(sizeof(IoasUnmap) == 24 && sizeof(HwptAlloc) == 48 && sizeof(HwInfo) == 40);
static_assert(sizeof(SetDirtyTracking) == 16 && sizeof(GetDirtyBitmap) == 48);

}  // namespace iommufd

static_assert(sizeof(BindIommufd) == 16 && sizeof(AttachPt) == 12 && sizeof(DetachPt) == 8);

}  // namespace ferry::vfio::uapi
