// SPDX-License-Identifier: BSD-2-Clause
// DEVICE_GET_INFO and DEVICE_GET_REGION_INFO: sizes, file offsets, what may be mapped.
#pragma once

#include <cstdint>
#include <vector>

#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/bytes.h"

namespace ferry::vfio {

// A region and where its bytes are in the device's file.
struct KernelRegion {
    RegionInfo info;
    uint64_t file_offset = 0;
};

// More than any driver of ours needs; what it says beyond that is not believed.
inline constexpr uint32_t kMaxRegions = 256;
inline constexpr uint32_t kMaxIrqIndexes = 64;
inline constexpr uint32_t kMaxRegionInfoBytes = 64 * 1024;

Result<DeviceInfo> query_device_info(Kernel& kernel, BorrowedFd device);
// One entry per index; a region that the device does not have is one of size 0.
Result<std::vector<KernelRegion>> query_regions(Kernel& kernel, BorrowedFd device, uint32_t count);

// The parts that may be mapped, out of a region info with its capability chain. Every offset and
// length in `info` is checked: Protocol where one leads out of the buffer or the region.
Result<std::vector<RegionInfo::Area>> parse_sparse_areas(ConstBytes info);

}  // namespace ferry::vfio
