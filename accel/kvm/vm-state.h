// SPDX-License-Identifier: BSD-2-Clause
// What of a VM lives in the kernel and not in one of its CPUs. Plain structures of the kernel; how
// they travel is the hypervisor's affair.
#pragma once

#include <cstdint>
#include <optional>

#include "accel/kvm/kvm.h"
#include "util/result.h"

namespace ferry::kvm {

struct VmState {
    kvm_irqchip pic_master{};
    kvm_irqchip pic_slave{};
    kvm_irqchip ioapic{};
    std::optional<kvm_pit_state2> pit;  // absent where the host has none
    std::optional<uint64_t> clock_ns;   // kvmclock
};

Result<VmState> read_vm_state(const Kvm& kvm, BorrowedFd vm);
// All but the clock, which is set when the guest goes on. Unsupported when the state has a part
// that this host lacks; a part that it does not have stays as it is. After the CPUs' state: a line
// that waits in the IOAPIC is delivered at once, and their local APICs must be there to take it.
Result<> write_vm_state(const Kvm& kvm, BorrowedFd vm, const VmState& state);

Result<uint64_t> read_clock_ns(const Kvm& kvm, BorrowedFd vm);
Result<> write_clock_ns(const Kvm& kvm, BorrowedFd vm, uint64_t now);

}  // namespace ferry::kvm
