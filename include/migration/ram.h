// SPDX-License-Identifier: BSD-2-Clause
// Guest RAM as a SaveVMHandlers: section "ram", version 4. See docs/devel/ram.rst.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "migration/savevm.h"
#include "system/memory.h"
#include "util/env.h"

namespace ferry::migration {

// Written by the migration thread, read by anybody. QMP's `ram` object.
struct RamStats {
    std::atomic<uint64_t> total_bytes = 0;
    std::atomic<uint64_t> remaining_bytes = 0;
    std::atomic<uint64_t> zero_pages = 0;
    std::atomic<uint64_t> normal_pages = 0;
    std::atomic<uint64_t> dirty_sync_count = 0;
    std::atomic<uint64_t> dirtied_pages = 0;  // found dirty by syncs, all together
    std::atomic<uint64_t> dirty_pages_per_second = 0;
    std::atomic<uint64_t> pages_per_second = 0;  // sent, zero pages too
    std::atomic<uint64_t> untracked_bytes = 0;   // go again in the last pass
};

// `pass`: called on the migration thread after each dirty sync with the new count.
std::unique_ptr<SaveVMHandlers> make_ram_handlers(system::GuestMemory& memory, util::Env& env,
                                                  RamStats& stats,
                                                  std::function<void(uint64_t)> pass);

}  // namespace ferry::migration
