// SPDX-License-Identifier: BSD-2-Clause
// What a device's log of its writes is started for.
#pragma once

#include <vector>

#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"

namespace ferry::vfio {

// As many as the kernel takes: a page of them.
inline constexpr size_t kMaxDmaLogRanges = 256;

// The guest's RAM, neighbours joined, by address.
std::vector<DmaLogRange> dma_log_ranges(const system::GuestMemory& memory);
// At most `count` of them: those with the smallest gaps between them become one, gap included.
std::vector<DmaLogRange> merge_ranges(std::vector<DmaLogRange> ranges, size_t count);

}  // namespace ferry::vfio
