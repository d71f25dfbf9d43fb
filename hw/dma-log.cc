// SPDX-License-Identifier: BSD-2-Clause
#include "hw/dma-log.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "util/try.h"

namespace ferry::hw {

using system::kPageSize;

namespace {

constexpr uint64_t kPagesPerWord = 64;

Result<> check_range(vfio::DmaLogRange range, uint64_t page_size) {
    if (range.length == 0 || range.iova % page_size != 0 || range.length % page_size != 0) {
        return make_errno(EINVAL, "range {:#x}+{:#x} is empty or not made of pages of {} bytes",
                          range.iova, range.length, page_size);
    }
    if (range.iova + (range.length - 1) < range.iova) {
        return make_errno(EOVERFLOW, "range {:#x}+{:#x} wraps", range.iova, range.length);
    }
    return {};
}

}  // namespace

Result<> check_dma_log_ranges(std::span<const vfio::DmaLogRange> ranges, uint64_t page_size) {
    if (ranges.empty()) return make_errno(EINVAL, "no ranges");
    if (ranges.size() > kMaxDmaLogRanges) {
        return make_errno(E2BIG, "{} ranges, at most {} are possible", ranges.size(),
                          kMaxDmaLogRanges);
    }
    if (!std::has_single_bit(page_size)) {
        return make_errno(EINVAL, "page size {} is no power of two", page_size);
    }
    for (const auto& range : ranges) MIG_CHECK(check_range(range, page_size));
    std::vector<vfio::DmaLogRange> sorted(ranges.begin(), ranges.end());
    std::ranges::sort(sorted, {}, &vfio::DmaLogRange::iova);
    for (size_t i = 1; i < sorted.size(); ++i) {
        if (sorted[i].iova - sorted[i - 1].iova < sorted[i - 1].length) {
            return make_errno(EINVAL, "ranges at {:#x} and {:#x} overlap", sorted[i - 1].iova,
                              sorted[i].iova);
        }
    }
    return {};
}

Result<> check_dma_log_report(vfio::DmaLogRange range, uint64_t page_size,
                              const util::Bitmap& out) {
    if (page_size < kPageSize || !std::has_single_bit(page_size)) {
        return make_errno(EINVAL, "page size {} is no power of two from {} on", page_size,
                          kPageSize);
    }
    // The length need not be a multiple: the last page counts as a whole.
    if (range.length == 0 || range.iova % page_size != 0 || range.length % kPageSize != 0) {
        return make_errno(EINVAL, "range {:#x}+{:#x} is empty or not made of pages", range.iova,
                          range.length);
    }
    if (range.iova + (range.length - 1) < range.iova) {
        return make_errno(EOVERFLOW, "range {:#x}+{:#x} wraps", range.iova, range.length);
    }
    if (out.size() < (range.length - 1) / page_size + 1) {
        return make_errno(EINVAL, "a bitmap of {} bits is too small for {} bytes", out.size(),
                          range.length);
    }
    return {};
}

Result<> DmaLog::start(std::span<const vfio::DmaLogRange> ranges) {
    const std::lock_guard lock(mutex_);
    if (!ranges_.empty()) return make_errno(EINVAL, "DMA logging is on already");
    std::vector<Pages> pages;
    for (const auto& range : ranges) {
        pages.push_back({range.iova / kPageSize, (range.iova + (range.length - 1)) / kPageSize});
    }
    std::ranges::sort(pages, {}, &Pages::first);
    for (const Pages& next : pages) {
        if (!ranges_.empty() && next.first <= ranges_.back().last + 1) {
            ranges_.back().last = std::max(ranges_.back().last, next.last);
        } else {
            ranges_.push_back(next);
        }
    }
    return {};
}

void DmaLog::mark(system::Iova iova, uint64_t length) {
    if (length == 0) return;
    const uint64_t first = iova / kPageSize;
    const uint64_t last = (iova + (length - 1)) / kPageSize;
    const std::lock_guard lock(mutex_);
    for (const Pages& range : ranges_) {
        if (range.last < first || last < range.first) continue;
        mark_pages(std::max(first, range.first), std::min(last, range.last));
    }
}

void DmaLog::mark_pages(uint64_t first_page, uint64_t last_page) {
    for (uint64_t page = first_page; page <= last_page; ++page) {
        words_[page / kPagesPerWord] |= uint64_t{1} << (page % kPagesPerWord);
    }
}

bool DmaLog::covers(uint64_t first_page, uint64_t last_page) const {
    return std::ranges::any_of(ranges_, [&](const Pages& range) {
        return range.first <= first_page && last_page <= range.last;
    });
}

Result<> DmaLog::report(vfio::DmaLogRange range, uint64_t page_size, util::Bitmap& out) {
    const uint64_t first = range.iova / kPageSize;
    const uint64_t last = (range.iova + (range.length - 1)) / kPageSize;
    const uint64_t pages_per_bit = page_size / kPageSize;
    const std::lock_guard lock(mutex_);
    if (ranges_.empty()) return make_errno(EINVAL, "DMA logging is off");
    if (!covers(first, last)) {
        return make_errno(EINVAL, "DMA in {:#x}+{:#x} is not wholly logged", range.iova,
                          range.length);
    }
    auto at = words_.lower_bound(first / kPagesPerWord);
    while (at != words_.end() && at->first <= last / kPagesPerWord) {
        for (uint64_t bits = at->second; bits != 0; bits &= bits - 1) {
            const uint64_t page = at->first * kPagesPerWord + std::countr_zero(bits);
            if (page < first || page > last) continue;
            out.set((page - first) / pages_per_bit);
            at->second &= ~(uint64_t{1} << (page % kPagesPerWord));
        }
        at = at->second == 0 ? words_.erase(at) : std::next(at);
    }
    return {};
}

void DmaLog::stop() {
    const std::lock_guard lock(mutex_);
    ranges_.clear();
    words_.clear();
}

}  // namespace ferry::hw
