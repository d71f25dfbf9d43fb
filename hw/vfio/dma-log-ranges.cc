// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/dma-log-ranges.h"

#include <algorithm>

namespace ferry::vfio {

namespace {

uint64_t page_floor(uint64_t address) {
    return address & ~(system::kPageSize - 1);
}

uint64_t gap_after(const std::vector<DmaLogRange>& ranges, size_t at) {
    return ranges[at + 1].iova - (ranges[at].iova + ranges[at].length);
}

}  // namespace

std::vector<DmaLogRange> dma_log_ranges(const system::GuestMemory& memory) {
    std::vector<DmaLogRange> ranges;
    for (const system::RamMapping& mapping : memory.mappings()) {
        const uint64_t first = page_floor(mapping.gpa);
        const uint64_t last = (mapping.gpa + mapping.length - 1) | (system::kPageSize - 1);
        if (!ranges.empty() && first <= ranges.back().iova + ranges.back().length) {
            ranges.back().length = last - ranges.back().iova + 1;
        } else {
            ranges.push_back({first, last - first + 1});
        }
    }
    return ranges;
}

std::vector<DmaLogRange> merge_ranges(std::vector<DmaLogRange> ranges, size_t count) {
    while (ranges.size() > std::max<size_t>(count, 1)) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < ranges.size(); ++i) {
            if (gap_after(ranges, i) < gap_after(ranges, best)) best = i;
        }
        const DmaLogRange& next = ranges[best + 1];
        ranges[best].length = next.iova + next.length - ranges[best].iova;
        ranges.erase(ranges.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
    return ranges;
}

}  // namespace ferry::vfio
