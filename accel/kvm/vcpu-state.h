// SPDX-License-Identifier: BSD-2-Clause
// All that a CPU of the guest is: what has to move for it to go on elsewhere at the exact
// instruction. Plain structures of the kernel; how they travel is the hypervisor's affair.
//
// A host may lack a part (a software KVM, an old kernel). It is then absent from what is read, and
// an error that names it when a peer's state has it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "accel/kvm/kvm.h"
#include "util/result.h"

namespace ferry::kvm {

struct Msr {
    uint32_t index = 0;
    uint64_t value = 0;
    bool operator==(const Msr&) const = default;
};

struct VcpuState {
    kvm_regs regs{};
    kvm_sregs sregs{};
    // The four pointers of PAE paging, where they are not what memory says at CR3.
    std::optional<std::array<uint64_t, 4>> pdptrs;
    std::optional<kvm_fpu> fpu;    // only where there is no XSAVE
    std::vector<std::byte> xsave;  // empty where there is no XSAVE
    std::optional<kvm_xcrs> xcrs;
    std::optional<kvm_debugregs> debug_registers;
    std::optional<kvm_lapic_state> lapic;
    std::optional<kvm_vcpu_events> events;
    std::optional<uint32_t> mp_state;
    uint32_t tsc_khz = 0;   // 0: unknown
    std::vector<Msr> msrs;  // the time stamp counter among them
};

// Which parts this VM's CPUs have, found out by reading and writing back each one.
struct VcpuParts {
    bool sregs2 = false;
    bool xsave = false;
    size_t xsave_bytes = uapi::kXsaveBytes;
    bool xcrs = false;
    bool debug_registers = false;
    bool lapic = false;
    bool events = false;
    bool mp_state = false;
    bool tsc_khz = false;
    std::vector<uint32_t> msrs;
};
// `vcpu` has its CPUID and has never run. An error when not even the registers can be read.
Result<VcpuParts> probe_parts(const Kvm& kvm, BorrowedFd vcpu);

// The CPU is not running, and no access of its is pending (vcpu.h).
Result<VcpuState> read_vcpu_state(KernelCalls& calls, BorrowedFd vcpu, const VcpuParts& parts);
Result<> write_vcpu_state(KernelCalls& calls, BorrowedFd vcpu, const VcpuParts& parts,
                          const VcpuState& state);

}  // namespace ferry::kvm
