// SPDX-License-Identifier: BSD-2-Clause
// The part of the kernel's VFIO interface that Ferry speaks, under names of its own: distributions
// ship a <linux/vfio.h> older than the kernels we run on (no PRE_COPY, no MIG_DATA_SIZE).
// hw/vfio/uapi-check.cc compares everything with the system's header as far as that goes.
// Native byte order; every argument begins with argsz, the bytes the caller gives.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace ferry::vfio::uapi {

// Number and descriptor decide together: the same number means other things elsewhere.
constexpr unsigned long request(unsigned number) {
    return _IO(';', 100 + number);
}

// Container. Extension and IOMMU type go by value.
inline constexpr unsigned long kGetApiVersion = request(0), kCheckExtension = request(1),
                               kSetIommu = request(2), kType1GetInfo = request(12),
                               kMapDma = request(13), kUnmapDma = request(14),
                               kDirtyPages = request(17);
inline constexpr int kApiVersion = 0;
inline constexpr unsigned long kType1v2Iommu = 3;
// Group.
inline constexpr unsigned long kGroupGetStatus = request(3), kGroupSetContainer = request(4),
                               kGroupUnsetContainer = request(5), kGroupGetDeviceFd = request(6);
// Device.
inline constexpr unsigned long kDeviceGetInfo = request(7), kDeviceGetRegionInfo = request(8),
                               kDeviceGetIrqInfo = request(9), kDeviceSetIrqs = request(10),
                               kDeviceReset = request(11), kDeviceFeature = request(17);
// Migration data descriptor.
inline constexpr unsigned long kMigGetPrecopyInfo = request(21);

struct CapHeader {
    uint16_t id, version;
    uint32_t next;  // from the start of the info struct; 0 ends the chain
};
struct GroupStatus {
    uint32_t argsz, flags;
};
inline constexpr uint32_t kGroupViable = 1 << 0, kGroupContainerSet = 1 << 1;

struct DmaMap {
    uint32_t argsz, flags;
    uint64_t vaddr, iova, size;
};
inline constexpr uint32_t kDmaMapRead = 1 << 0, kDmaMapWrite = 1 << 1;
struct DmaUnmap {
    uint32_t argsz, flags;
    uint64_t iova, size;  // size: out, what was unmapped
};
inline constexpr uint32_t kDmaUnmapGetDirtyBitmap = 1 << 0;
struct DirtyBitmap {
    uint64_t pgsize, size;  // of the bitmap, bytes
    uint64_t data;          // pointer to 64-bit words
};
struct DmaUnmapDirty {  // with kDmaUnmapGetDirtyBitmap
    DmaUnmap unmap;
    DirtyBitmap bitmap;
};
struct DirtyPages {  // one flag
    uint32_t argsz, flags;
};
inline constexpr uint32_t kDirtyPagesStart = 1 << 0, kDirtyPagesStop = 1 << 1,
                          kDirtyPagesGetBitmap = 1 << 2;
struct DirtyPagesGet {  // with kDirtyPagesGetBitmap
    DirtyPages header;
    uint64_t iova, size;
    DirtyBitmap bitmap;
};
struct Type1Info {
    uint32_t argsz, flags;
    uint64_t iova_pgsizes;
    uint32_t cap_offset, pad;
};
inline constexpr uint32_t kType1InfoCaps = 1 << 1;
inline constexpr uint16_t kType1CapIovaRange = 1, kType1CapMigration = 2;
struct Type1MigrationCap {
    CapHeader header;
    uint32_t flags, pad;
    uint64_t pgsize_bitmap, max_dirty_bitmap_size;
};

struct DeviceInfo {
    uint32_t argsz, flags, num_regions, num_irqs, cap_offset, pad;
};
inline constexpr uint32_t kDeviceCanReset = 1 << 0, kDeviceIsPci = 1 << 1;

struct RegionInfo {
    uint32_t argsz, flags, index, cap_offset;
    uint64_t size, offset;
};
inline constexpr uint32_t kRegionRead = 1 << 0, kRegionWrite = 1 << 1, kRegionMmap = 1 << 2,
                          kRegionCaps = 1 << 3;
inline constexpr uint16_t kRegionCapSparseMmap = 1;
struct SparseMmapCap {  // followed by nr_areas SparseMmapArea
    CapHeader header;
    uint32_t nr_areas, reserved;
};
struct SparseMmapArea {
    uint64_t offset, size;
};

struct IrqInfo {
    uint32_t argsz, flags, index, count;
};
inline constexpr uint32_t kIrqEventfd = 1 << 0, kIrqMaskable = 1 << 1, kIrqAutomasked = 1 << 2,
                          kIrqNoresize = 1 << 3;
struct IrqSet {  // followed by `count` data elements
    uint32_t argsz, flags, index, start, count;
};
inline constexpr uint32_t kIrqDataNone = 1 << 0, kIrqDataEventfd = 1 << 2, kIrqActionMask = 1 << 3,
                          kIrqActionUnmask = 1 << 4, kIrqActionTrigger = 1 << 5;

struct FeatureHeader {
    uint32_t argsz, flags;  // flags: feature number and what to do with it
};
inline constexpr uint32_t kFeatureGet = 1 << 16, kFeatureSet = 1 << 17, kFeatureProbe = 1 << 18;
inline constexpr uint32_t kFeatureMigration = 1, kFeatureMigDeviceState = 2,
                          kFeatureDmaLoggingStart = 6, kFeatureDmaLoggingStop = 7,
                          kFeatureDmaLoggingReport = 8, kFeatureMigDataSize = 9;
template <typename Payload>
struct Feature {
    FeatureHeader header;
    Payload payload;
};

struct Migration {
    uint64_t flags;
};
inline constexpr uint64_t kMigrationStopCopy = 1 << 0, kMigrationP2p = 1 << 1,
                          kMigrationPreCopy = 1 << 2;
struct MigDeviceState {
    uint32_t device_state;  // vfio::MigState
    int32_t data_fd;        // out; -1: no session was opened
};
struct MigDataSize {
    uint64_t stop_copy_length;
};
struct PrecopyInfo {
    uint32_t argsz, flags;
    uint64_t initial_bytes, dirty_bytes;
};

struct DmaLoggingRange {
    uint64_t iova, length;
};
struct DmaLoggingControl {
    uint64_t page_size;
    uint32_t num_ranges, reserved;
    uint64_t ranges;  // pointer to DmaLoggingRange[]
};
struct DmaLoggingReport {
    uint64_t iova, length, page_size;
    uint64_t bitmap;  // pointer to 64-bit words; bits are only ever set
};

}  // namespace ferry::vfio::uapi
