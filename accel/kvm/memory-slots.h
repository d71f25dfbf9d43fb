// SPDX-License-Identifier: BSD-2-Clause
// Memory slots: pieces of the host's memory that the kernel shows to a guest, and their dirty logs.
#pragma once

#include <cstdint>
#include <vector>

#include "accel/kvm/calls.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/bytes.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::kvm {

struct MemorySlot {
    uint32_t id = 0;
    system::Gpa gpa = 0;
    MutBytes host;
    uint64_t pages() const { return host.size() / system::kPageSize; }
};

// One slot per mapping, numbered from 0. InvalidArgument where a mapping does not begin and end at
// pages; LimitExceeded when there are more than `max_slots`.
Result<std::vector<MemorySlot>> slots_for(const std::vector<system::RamMapping>& mappings,
                                          unsigned max_slots);

// Creates or changes the slot; `flags` of KVM_MEM_*.
Result<> set_slot(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot, uint32_t flags);
Result<> remove_slot(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot);
// Where the processor keeps what real mode needs on hosts without support for it: three pages below
// 4 GiB that no guest may use, and one before them. Before the first vCPU.
Result<> set_tss_address(KernelCalls& calls, BorrowedFd vm);

// `dirty` has one bit for each page of the slot.
Result<> get_dirty_log(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot,
                       util::Bitmap& dirty);
// Forgets the pages set in `dirty` among [first, first + count), and watches them anew. `first` is
// a multiple of kClearAlignmentPages, and so is `count` unless it reaches the slot's end.
inline constexpr uint64_t kClearAlignmentPages = 64;
Result<> clear_dirty_log(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot, uint64_t first,
                         uint64_t count, const util::Bitmap& dirty);

}  // namespace ferry::kvm
