// SPDX-License-Identifier: BSD-2-Clause
// What the guest's CPUs wrote, for migration: KVM's log of the RAM's memory slots.
#pragma once

#include <string_view>
#include <vector>

#include "accel/kvm/calls.h"
#include "accel/kvm/kvm.h"
#include "accel/kvm/memory-slots.h"
#include "system/memory.h"
#include "util/log.h"

namespace ferry::kvm {

// Called as every DirtyTracker: on the migration thread, one call at a time. A log that cannot be
// read marks its slot dirty and warns once; where the host's log does not work at all, RAM is
// untracked.
class DirtyLog final : public system::DirtyTracker {
 public:
    // How much of the log is cleared by one request: the kernel holds its lock for so long.
    static constexpr uint64_t kClearChunkPages = 64 * 1024;
    static_assert(kClearChunkPages % kClearAlignmentPages == 0);

    // `vm` and `slots` are borrowed for the object's life; `mode` is what the VM was set up for.
    DirtyLog(KernelCalls& calls, BorrowedFd vm, const std::vector<MemorySlot>& slots,
             DirtyLogMode mode, util::Logger& log)
        : calls_(calls), vm_(vm), slots_(slots), mode_(mode), log_(log) {}

    std::string_view name() const override { return "kvm"; }
    Result<> dirty_log_start() override;
    void dirty_log_stop() override;
    void dirty_log_sync(system::SyncPhase phase, system::DirtySink& sink) override;

 private:
    Result<> collect(const MemorySlot& slot, util::Bitmap& dirty);
    void warn_once(const Error& error);

    KernelCalls& calls_;
    BorrowedFd vm_;
    const std::vector<MemorySlot>& slots_;
    DirtyLogMode mode_;
    util::Logger& log_;
    bool warned_ = false;
};

}  // namespace ferry::kvm
