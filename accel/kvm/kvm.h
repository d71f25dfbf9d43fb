// SPDX-License-Identifier: BSD-2-Clause
// The host's KVM: whether it can be used, and what it can do. What a capability promises is
// believed only after it was used once (probe.h). See docs/devel/kvm.rst.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "accel/kvm/calls.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::kvm {

// How the kernel tells which pages the guest wrote.
enum class DirtyLogMode : uint8_t {
    None,    // it does not, or is wrong: all of RAM counts as untracked
    Plain,   // reading the log clears it and protects the pages again
    Manual,  // cleared by a request of its own, in pieces
    Ring,    // a list of pages per CPU (dirty-ring.h); only when asked for
};
std::string_view to_string(DirtyLogMode mode);

struct Capabilities {
    unsigned max_vcpus = 1;
    unsigned max_slots = 0;
    DirtyLogMode dirty_log = DirtyLogMode::None;
    int dirty_ring = 0;               // the capability that switches rings on; 0: there is none
    uint32_t dirty_ring_entries = 0;  // of each CPU's ring, in mode Ring
    bool xsave = false;
    size_t xsave_bytes = uapi::kXsaveBytes;  // of one XSAVE area, with optional components
    bool xcrs = false;
    bool debug_registers = false;
    bool sregs2 = false;
    bool events = false;
    bool mp_state = false;
    bool tsc_khz = false;
    bool pit = false;
    bool clock = false;  // kvmclock can be read and set
    bool irq_routing = false;
    bool signal_msi = false;
    bool irqfd = false;
    bool irqfd_resample = false;
    bool ioeventfd = false;
};

// Read once at open; thread-safe.
class Kvm {
 public:
    // Fails with the reason why KVM cannot be used here: no device, no permission, a foreign API
    // version, something indispensable is missing, or a guest of four instructions does not run.
    static Result<std::unique_ptr<Kvm>> open(const std::string& path = "/dev/kvm",
                                             KernelCalls& calls = system_calls());
    // Before the first VM: dirty rings instead of the log. A power of two; InvalidArgument where
    // the host does not allow so many, Unsupported where its rings are not there or do not work.
    Result<> use_dirty_ring(uint32_t entries);

    BorrowedFd fd() const { return fd_.borrow(); }
    KernelCalls& calls() const { return calls_; }
    const Capabilities& capabilities() const { return capabilities_; }
    // Of the kvm_run structure that each vCPU shares with the kernel.
    size_t run_bytes() const { return run_bytes_; }
    // What the host can show to a guest.
    const std::vector<kvm_cpuid_entry2>& supported_cpuid() const { return supported_cpuid_; }
    // The MSRs that hold state, in the kernel's order.
    const std::vector<uint32_t>& msr_indices() const { return msr_indices_; }

    Result<UniqueFd> create_vm() const;

 private:
    Kvm(KernelCalls& calls, UniqueFd fd) : calls_(calls), fd_(std::move(fd)) {}
    Result<> check_version() const;
    Result<int> extension(int capability) const;
    Result<> require_capabilities() const;
    Result<> read_capabilities();
    Result<> read_supported_cpuid();
    Result<> read_msr_indices();

    KernelCalls& calls_;
    UniqueFd fd_;
    Capabilities capabilities_;
    size_t run_bytes_ = 0;
    std::vector<kvm_cpuid_entry2> supported_cpuid_;
    std::vector<uint32_t> msr_indices_;
};

}  // namespace ferry::kvm
