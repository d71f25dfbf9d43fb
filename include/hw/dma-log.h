// SPDX-License-Identifier: BSD-2-Clause
// Which pages a device wrote: the log behind DMA logging, for device models, and the rules that a
// request to start or read one must obey, for those who serve them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/result.h"

namespace ferry::hw {

// What one page of range structures holds in the kernel's interface.
inline constexpr size_t kMaxDmaLogRanges = 256;

// The kernel's checks and errnos: page size a power of two, ranges aligned to it, not empty, not
// wrapping, not overlapping, not too many.
Result<> check_dma_log_ranges(std::span<const vfio::DmaLogRange> ranges, uint64_t page_size);
// The same for a report; `out` needs a bit for each page of the range.
Result<> check_dma_log_report(vfio::DmaLogRange range, uint64_t page_size, const util::Bitmap& out);

// Exact to kPageSize. Memory grows with the pages written, not with the ranges, which may span an
// address space. Thread-safe.
class DmaLog {
 public:
    // Arguments have been checked. EINVAL when it is on already.
    Result<> start(std::span<const vfio::DmaLogRange> ranges);
    // After the write: whoever collects in between must find it the next time. Writes outside the
    // ranges, or while the log is off, are not kept.
    void mark(system::Iova iova, uint64_t length);
    // ORs into `out` and forgets. EINVAL when the log is off or the range is not wholly inside.
    Result<> report(vfio::DmaLogRange range, uint64_t page_size, util::Bitmap& out);
    void stop();

 private:
    bool covers(uint64_t first_page, uint64_t last_page) const;
    void mark_pages(uint64_t first_page, uint64_t last_page);

    struct Pages {
        uint64_t first, last;  // inclusive
    };
    std::mutex mutex_;
    std::vector<Pages> ranges_;           // by address, adjacent ones joined; empty: the log is off
    std::map<uint64_t, uint64_t> words_;  // page / 64 -> bits
};

}  // namespace ferry::hw
