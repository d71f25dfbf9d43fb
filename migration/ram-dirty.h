// SPDX-License-Identifier: BSD-2-Clause
// Which pages of guest RAM still have to be sent in this attempt: what the VMM logs itself, what
// the trackers (KVM, VFIO containers) report, and what nobody can tell.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "system/memory.h"
#include "util/bitmap.h"

namespace ferry::migration {

// One attempt's. Migration thread. Allocates in the constructor only.
class RamDirtyMap final : private system::DirtySink {
 public:
    // Everything is dirty at first. `memory` must not change meanwhile.
    explicit RamDirtyMap(const system::GuestMemory& memory);

    // Asks everybody. Returns how many clean pages turned out dirty.
    uint64_t sync(system::SyncPhase phase);
    // Everything has stopped: what was untracked at any sync of this attempt is dirty once more,
    // for the last time.
    void add_untracked();

    struct Page {
        system::RamBlock* block;
        uint64_t first;  // page number in the block
        uint64_t count;  // neighbours, at most `max`
    };
    // Takes the next run of dirty pages, in address order, starting over at the end: they are clean
    // from now on. count 0: nothing is dirty.
    Page take(uint64_t max);

    uint64_t dirty_pages() const { return dirty_pages_; }
    uint64_t untracked_pages() const { return untracked_pages_; }
    // Dirty, untracked, or both: what has to go before the VM can run elsewhere.
    uint64_t pending_pages() const { return dirty_pages_ + untracked_clean_pages_; }

 private:
    struct Block {
        system::RamBlock* block;
        util::Bitmap dirty;
        util::Bitmap untracked;  // at any sync of this attempt
    };
    struct Mapping {
        system::Gpa gpa;
        uint64_t length;
        uint64_t offset;  // into the block
        Block* block;
    };
    // The part of [first, first + length) that lies in RAM, piece by piece.
    template <typename Each>
    void for_each_piece(system::Gpa first, uint64_t length, Each each);
    void recount_untracked();

    void mark_dirty(system::Gpa first, uint64_t length) override;
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& pages) override;
    void mark_untracked(system::Gpa first, uint64_t length) override;

    const system::GuestMemory& memory_;
    std::vector<Block> blocks_;
    std::vector<Mapping> mappings_;  // by address
    size_t cursor_block_ = 0;
    uint64_t cursor_page_ = 0;
    uint64_t dirty_pages_ = 0;
    uint64_t untracked_pages_ = 0;
    uint64_t untracked_clean_pages_ = 0;  // untracked and not dirty
};

}  // namespace ferry::migration
