// SPDX-License-Identifier: BSD-2-Clause
// The destination's side of section "ram": checks every record and puts pages where they belong.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "migration/savevm.h"
#include "migration/stream-options.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/trace.h"

namespace ferry::migration {

class MultifdReceiver;

// A block that the source has, too. Any thread; different pages at a time.
class RamTarget {
 public:
    explicit RamTarget(system::RamBlock& block) : block_(&block) {}

    const system::RamBlock& block() const { return *block_; }
    bool listed() const { return listed_; }
    // Load thread, before any page: from now on the block holds what a peer sent, even if the load
    // fails.
    void list();
    // Where the page's data belong.
    Result<MutBytes> page(uint64_t offset);
    Result<> clear_page(uint64_t offset);

 private:
    Result<> check(uint64_t offset) const;

    system::RamBlock* block_;
    bool listed_ = false;
    // Only where the block held nothing but zeros before: the pages that were written since.
    std::optional<util::AtomicBitmap> written_;
};

// One load after another. Load thread.
class RamLoader {
 public:
    RamLoader(system::GuestMemory& memory, util::Tracer& trace) : memory_(memory), trace_(trace) {}

    // `pages`: the page channels, which need not be there.
    void begin(MultifdReceiver* pages, StreamOptions::Barrier barrier);
    // Any thread, once the block list is known; nullptr: not announced.
    RamTarget* find_listed(std::string_view name);
    Result<> load_body(LoadStream& in, SectionKind kind, uint32_t version);
    // Whether the source has sent what this VM needs.
    Result<> validate() const;
    void end();

 private:
    Result<> load_block_list(LoadStream& in, uint64_t total);
    Result<> load_page(LoadStream& in, uint64_t flags, uint64_t offset);
    Result<> select_block(LoadStream& in, uint64_t flags);
    Result<> end_of_body();
    RamTarget* find(std::string_view name);

    system::GuestMemory& memory_;
    util::Tracer& trace_;
    MultifdReceiver* pages_ = nullptr;
    StreamOptions::Barrier barrier_ = StreamOptions::Barrier::PerRound;
    std::vector<RamTarget> targets_;
    RamTarget* current_ = nullptr;  // of CONTINUE; outlives sections
    enum class BlockList : uint8_t { Awaited, Received } block_list_ = BlockList::Awaited;
};

}  // namespace ferry::migration
