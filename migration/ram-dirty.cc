// SPDX-License-Identifier: BSD-2-Clause
#include "migration/ram-dirty.h"

#include <algorithm>
#include <bit>

namespace ferry::migration {

using system::Gpa;
using system::kPageSize;

namespace {

uint64_t saturated_product(uint64_t a, uint64_t b) {
    uint64_t product = 0;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t saturated_sum(uint64_t a, uint64_t b) {
    uint64_t sum = 0;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

// Marks the pages that [offset, offset + length) of a block touches. Returns how many were clear.
uint64_t set_pages(util::Bitmap& bitmap, uint64_t offset, uint64_t length) {
    const uint64_t first = offset / kPageSize;
    return bitmap.set_range(first, (offset + length - 1) / kPageSize - first + 1);
}

uint64_t count_untracked_clean(const util::Bitmap& untracked, const util::Bitmap& dirty) {
    uint64_t total = 0;
    for (size_t i = 0; i < untracked.words().size(); ++i) {
        total += static_cast<uint64_t>(std::popcount(untracked.words()[i] & ~dirty.words()[i]));
    }
    return total;
}

}  // namespace

RamDirtyMap::RamDirtyMap(const system::GuestMemory& memory) : memory_(memory) {
    for (const auto& block : memory.blocks()) {
        blocks_.push_back(
            {block.get(), util::Bitmap(block->pages()), util::Bitmap(block->pages())});
        blocks_.back().dirty.set_all();
        dirty_pages_ += block->pages();
    }
    for (const system::RamMapping& mapping : memory.mappings()) {
        const auto block = std::ranges::find(blocks_, mapping.block, &Block::block);
        mappings_.push_back({mapping.gpa, mapping.length, mapping.offset, &*block});
    }
}

// The rest is counted as it is marked: looking at all bits of a large guest takes its time, and the
// last sync lies in the pause.
void RamDirtyMap::recount_untracked() {
    untracked_clean_pages_ = 0;
    if (untracked_pages_ == 0) return;
    for (const Block& block : blocks_) {
        untracked_clean_pages_ += count_untracked_clean(block.untracked, block.dirty);
    }
}

uint64_t RamDirtyMap::sync(system::SyncPhase phase) {
    const uint64_t before = dirty_pages_;
    for (system::DirtyTracker* tracker : memory_.trackers()) tracker->dirty_log_sync(phase, *this);
    for (Block& block : blocks_) {
        dirty_pages_ += block.block->dirty_log().collect_into(block.dirty);
    }
    recount_untracked();
    return dirty_pages_ - before;
}

void RamDirtyMap::add_untracked() {
    if (untracked_pages_ == 0) return;
    for (Block& block : blocks_) {
        dirty_pages_ += block.dirty.or_range(0, block.untracked, 0, block.untracked.size());
        block.untracked.clear_all();
    }
    untracked_pages_ = untracked_clean_pages_ = 0;
}

RamDirtyMap::Page RamDirtyMap::take(uint64_t max) {
    if (dirty_pages_ == 0) return {nullptr, 0, 0};
    for (;;) {
        Block& block = blocks_[cursor_block_];
        const uint64_t first = block.dirty.find_set(cursor_page_);
        if (first == block.dirty.size()) {
            cursor_block_ = (cursor_block_ + 1) % blocks_.size();
            cursor_page_ = 0;
            continue;
        }
        const uint64_t count = block.dirty.run_of_set(first, max);
        block.dirty.clear_range(first, count);
        dirty_pages_ -= count;
        if (untracked_pages_ != 0) {
            for (uint64_t i = 0; i < count; ++i) {
                if (block.untracked.test(first + i)) ++untracked_clean_pages_;
            }
        }
        cursor_page_ = first + count;
        return {block.block, first, count};
    }
}

template <typename Each>
void RamDirtyMap::for_each_piece(Gpa first, uint64_t length, Each each) {
    const Gpa end = saturated_sum(first, length);
    auto at = std::ranges::upper_bound(mappings_, first, {}, &Mapping::gpa);
    if (at != mappings_.begin()) --at;
    for (; at != mappings_.end() && at->gpa < end; ++at) {
        const Gpa from = std::max(first, at->gpa);
        const Gpa to = std::min(end, at->gpa + at->length);
        if (from < to) each(*at->block, at->offset + (from - at->gpa), from, to - from);
    }
}

void RamDirtyMap::mark_dirty(Gpa first, uint64_t length) {
    for_each_piece(first, length, [this](Block& block, uint64_t offset, Gpa, uint64_t piece) {
        dirty_pages_ += set_pages(block.dirty, offset, piece);
    });
}

void RamDirtyMap::mark_untracked(Gpa first, uint64_t length) {
    for_each_piece(first, length, [this](Block& block, uint64_t offset, Gpa, uint64_t piece) {
        untracked_pages_ += set_pages(block.untracked, offset, piece);
    });
}

void RamDirtyMap::mark_dirty_pages(Gpa first, uint64_t page_size, const util::Bitmap& pages) {
    const auto whole_pages = [](uint64_t a, uint64_t b) { return (a | b) % kPageSize == 0; };
    const auto mark_runs = [&](uint64_t from_bit, uint64_t end_bit) {
        for (uint64_t bit = pages.find_set(from_bit); bit < end_bit;) {
            const uint64_t run_end = std::min(pages.find_clear(bit), end_bit);
            mark_dirty(saturated_sum(first, saturated_product(bit, page_size)),
                       saturated_product(run_end - bit, page_size));
            bit = pages.find_set(run_end);
        }
    };
    if (page_size != kPageSize || first % kPageSize != 0) return mark_runs(0, pages.size());
    // The usual case, word by word: it lies in the pause.
    for_each_piece(first, saturated_product(pages.size(), kPageSize),
                   [&](Block& block, uint64_t offset, Gpa from, uint64_t piece) {
                       const uint64_t bit = (from - first) / kPageSize;
                       const uint64_t count = (piece + kPageSize - 1) / kPageSize;
                       if (whole_pages(from, offset)) {
                           dirty_pages_ +=
                               block.dirty.or_range(offset / kPageSize, pages, bit, count);
                       } else {
                           mark_runs(bit, std::min(bit + count + 1, pages.size()));
                       }
                   });
}

}  // namespace ferry::migration
