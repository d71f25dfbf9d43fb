// SPDX-License-Identifier: BSD-2-Clause
// One VM of KVM without its CPUs: RAM in memory slots, the interrupt controllers, the PIT and the
// guest's clock, all in the kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "accel/kvm/dirty-ring.h"
#include "accel/kvm/interrupts.h"
#include "accel/kvm/kvm.h"
#include "accel/kvm/memory-slots.h"
#include "accel/kvm/vm-state.h"
#include "system/device-memory.h"
#include "system/memory.h"
#include "util/registration.h"

namespace ferry::kvm {

class KvmVm final : public system::DeviceMemory {
 public:
    // `memory` is mapped completely and outlives the VM, as `kvm` does.
    static Result<std::unique_ptr<KvmVm>> create(const Kvm& kvm, system::GuestMemory& memory);
    ~KvmVm() override = default;
    KvmVm(const KvmVm&) = delete;
    KvmVm& operator=(const KvmVm&) = delete;

    const Kvm& kvm() const { return kvm_; }
    KernelCalls& calls() const { return kvm_.calls(); }
    BorrowedFd fd() const { return fd_.borrow(); }
    system::GuestMemory& memory() { return memory_; }
    Interrupts& interrupts() { return *interrupts_; }
    // Of RAM; constant.
    const std::vector<MemorySlot>& ram_slots() const { return ram_slots_; }
    DirtyLogMode dirty_log_mode() const { return kvm_.capabilities().dirty_log; }
    DirtyRings* dirty_rings() { return dirty_rings_.get(); }  // null but in mode Ring

    // A memory slot without dirty log.
    Result<util::Registration> map_device_memory(system::Gpa gpa, MutBytes host) override;

    // The CPUs stand still. What is read is kept by thaw_clock(), not what goes on in between.
    Result<VmState> state() const;
    Result<> set_state(const VmState& state);
    // As after power-on. The guest's clock goes on.
    Result<> reset();

    // The guest's clock stands still from freeze to thaw. Where it can't be read, it does not.
    Result<> freeze_clock();
    Result<> thaw_clock();

 private:
    KvmVm(const Kvm& kvm, system::GuestMemory& memory, UniqueFd fd)
        : kvm_(kvm), memory_(memory), fd_(std::move(fd)) {}
    Result<> create_chips();
    Result<> create_slots();
    Result<> prepare_dirty_log();
    Result<uint32_t> take_slot_id();

    const Kvm& kvm_;
    system::GuestMemory& memory_;
    UniqueFd fd_;
    std::vector<MemorySlot> ram_slots_;
    std::unique_ptr<DirtyRings> dirty_rings_;
    std::unique_ptr<Interrupts> interrupts_;
    VmState power_on_;
    mutable std::mutex mutex_;
    std::vector<bool> device_slots_;           // mutex_; which ids after RAM's are taken
    std::optional<uint64_t> frozen_clock_ns_;  // mutex_
};

}  // namespace ferry::kvm
