// SPDX-License-Identifier: BSD-2-Clause
// What the guest's CPUs wrote, listed by the kernel page by page in a ring per CPU, which the CPU
// leaves the guest for when it is full.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "accel/kvm/calls.h"
#include "accel/kvm/kvm.h"
#include "accel/kvm/memory-slots.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/log.h"
#include "util/mapped-region.h"
#include "util/result.h"

namespace ferry::kvm {

// Before the VM's first CPU; `host` is in mode Ring.
Result<> enable_dirty_rings(KernelCalls& calls, BorrowedFd vm, const Capabilities& host);

// The rings of one VM, and the pages found in them so far. Thread-safe.
class DirtyRings {
 public:
    // `vm` is borrowed for the object's life. `entries` of each ring; they are on already.
    DirtyRings(KernelCalls& calls, BorrowedFd vm, uint32_t entries)
        : calls_(calls), vm_(vm), entries_(entries) {}
    DirtyRings(const DirtyRings&) = delete;
    DirtyRings& operator=(const DirtyRings&) = delete;

    static uint64_t bytes_of(uint64_t entries) { return entries * sizeof(kvm_dirty_gfn); }

    // Before the first CPU: the slots whose pages count. What the rings say of others is ignored.
    void watch(const std::vector<MemorySlot>& slots);
    // The next CPU's, in the order of their numbers.
    Result<> add(BorrowedFd vcpu);

    // Takes what is in the ring of one CPU, or of all, and gives the room back to the kernel. After
    // an Error what was taken is not lost.
    Result<> harvest(unsigned vcpu);
    Result<> harvest_all();
    // ORs what was found of the slot into `dirty`, and forgets it.
    void take(size_t slot, util::Bitmap& dirty);
    void forget();

 private:
    struct Ring {
        util::MappedRegion memory;
        uint32_t next = 0;  // where the kernel writes after what was taken
    };
    // With the lock held. How many entries there were.
    uint32_t collect(Ring& ring);
    Result<> give_back(uint32_t entries);
    void note(uint32_t slot, uint64_t page);

    KernelCalls& calls_;
    const BorrowedFd vm_;
    const uint32_t entries_;
    std::mutex mutex_;  // the rest; held over KVM_RESET_DIRTY_RINGS, which waits for no exit
    std::vector<Ring> rings_;
    uint64_t owed_ = 0;                // taken, and not yet given back
    std::vector<util::Bitmap> dirty_;  // by slot
};

// Called as every DirtyTracker. A ring that cannot be harvested marks all RAM dirty and warns once.
class DirtyRingLog final : public system::DirtyTracker {
 public:
    // All borrowed for the object's life.
    DirtyRingLog(KernelCalls& calls, BorrowedFd vm, const std::vector<MemorySlot>& slots,
                 DirtyRings& rings, util::Logger& log)
        : calls_(calls), vm_(vm), slots_(slots), rings_(rings), log_(log) {}

    std::string_view name() const override { return "kvm"; }
    Result<> dirty_log_start() override;
    void dirty_log_stop() override;
    void dirty_log_sync(system::SyncPhase phase, system::DirtySink& sink) override;

 private:
    void warn_once(const Error& error);

    KernelCalls& calls_;
    BorrowedFd vm_;
    const std::vector<MemorySlot>& slots_;
    DirtyRings& rings_;
    util::Logger& log_;
    bool warned_ = false;
};

}  // namespace ferry::kvm
