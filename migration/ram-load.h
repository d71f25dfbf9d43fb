// SPDX-License-Identifier: BSD-2-Clause
// The destination's side of section "ram": checks every record and puts pages where they belong.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "migration/savevm.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/trace.h"

namespace ferry::migration {

// One load after another. Load thread.
class RamLoader {
 public:
    RamLoader(system::GuestMemory& memory, util::Tracer& trace) : memory_(memory), trace_(trace) {}

    void begin();
    Result<> load_body(LoadStream& in, SectionKind kind, uint32_t version);
    // Whether the source has sent what this VM needs.
    Result<> validate() const;
    void end();

 private:
    struct Target {
        system::RamBlock* block;
        bool listed = false;  // the source has it too
        // Only where the block held nothing but zeros before: the pages that were written since.
        std::optional<util::Bitmap> written;
    };

    Result<> load_block_list(LoadStream& in, uint64_t total);
    Result<> load_page(LoadStream& in, uint64_t flags, uint64_t offset);
    Result<> select_block(LoadStream& in, uint64_t flags);
    Target* find(std::string_view name);

    system::GuestMemory& memory_;
    util::Tracer& trace_;
    std::vector<Target> targets_;
    Target* current_ = nullptr;  // of CONTINUE; outlives sections
    enum class BlockList : uint8_t { Awaited, Received } block_list_ = BlockList::Awaited;
};

}  // namespace ferry::migration
