// SPDX-License-Identifier: BSD-2-Clause
// The order matters in both directions.
//
// Reading: the multiprocessor state first, because looking at it makes the kernel deliver a pending
// INIT or start-up message, which changes the others; the events last, for the same reason.
//
// Writing: the frequency of the time stamp counter before its value. The special registers before
// the local APIC, whose base is one of them; the APIC before the MSRs, as its timer's deadline is
// accepted only in the mode that the APIC is in; the events last, since setting registers drops
// pending exceptions.
#include "accel/kvm/vcpu-state.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr uint32_t kTscDeadline = 0x6e0;

Error lacks(std::string_view part) {
    return make_error(ErrorKind::Unsupported, "the host's KVM has no {}, which the state has",
                      part);
}

// One vCPU and what it can.
class Access {
 public:
    Access(KernelCalls& calls, BorrowedFd vcpu) : calls_(calls), vcpu_(vcpu) {}

    template <typename T>
    Result<T> read(unsigned long request, std::string_view call) const {
        T value{};
        MIG_CHECK(calls_.get(vcpu_, request, &value, call));
        return value;
    }
    template <typename T>
    Result<> write(unsigned long request, const T& value, std::string_view call) const {
        return calls_.set(vcpu_, request, &value, call);
    }
    // Whether a part can be read and written back.
    template <typename T>
    bool works(bool advertised, unsigned long get, unsigned long set) const {
        if (!advertised) return false;
        const auto value = read<T>(get, "probing");
        return value && write(set, *value, "probing");
    }

    Result<std::vector<std::byte>> read_xsave(size_t bytes) const {
        std::vector<std::byte> area(bytes);
        const bool large = bytes > uapi::kXsaveBytes;
        MIG_CHECK(calls_.get(vcpu_, large ? uapi::kGetXsave2 : uapi::kGetXsave, area.data(),
                             large ? "ioctl(KVM_GET_XSAVE2)" : "ioctl(KVM_GET_XSAVE)"));
        return area;
    }
    // The kernel reads as many bytes as the guest's components need.
    Result<> write_xsave(std::vector<std::byte> area, size_t bytes) const {
        area.resize(std::max(area.size(), bytes));
        return calls_.set(vcpu_, uapi::kSetXsave, area.data(), "ioctl(KVM_SET_XSAVE)");
    }

    Result<uint32_t> read_tsc_khz() const {
        MIG_TRY(const int khz,
                calls_.ioctl_value(vcpu_, KVM_GET_TSC_KHZ, 0, "ioctl(KVM_GET_TSC_KHZ)"));
        return static_cast<uint32_t>(khz);
    }
    Result<> write_tsc_khz(uint32_t khz) const {
        auto done = calls_.ioctl_value(vcpu_, KVM_SET_TSC_KHZ, khz, "ioctl(KVM_SET_TSC_KHZ)");
        if (!done) return std::move(done).error();
        return {};
    }

    Result<std::vector<Msr>> read_msrs(const std::vector<uint32_t>& indices) const {
        uapi::Msrs list(indices.size());
        for (size_t i = 0; i < indices.size(); ++i) list.entries()[i].index = indices[i];
        MIG_TRY(const int done,
                calls_.ioctl(vcpu_, uapi::kGetMsrs, list.data(), "ioctl(KVM_GET_MSRS)"));
        if (static_cast<size_t>(done) < indices.size()) {
            return make_error(ErrorKind::Unsupported, "KVM does not read MSR {:#x}",
                              indices[static_cast<size_t>(done)]);
        }
        std::vector<Msr> msrs;
        for (const kvm_msr_entry& entry : list.entries()) msrs.push_back({entry.index, entry.data});
        return msrs;
    }
    Result<> write_msrs(const std::vector<Msr>& msrs) const {
        uapi::Msrs list(msrs.size());
        for (size_t i = 0; i < msrs.size(); ++i) {
            list.entries()[i].index = msrs[i].index;
            list.entries()[i].data = msrs[i].value;
        }
        MIG_TRY(const int done,
                calls_.ioctl(vcpu_, uapi::kSetMsrs, list.data(), "ioctl(KVM_SET_MSRS)"));
        if (static_cast<size_t>(done) < msrs.size()) {
            const Msr& refused = msrs[static_cast<size_t>(done)];
            return make_error(ErrorKind::Unsupported,
                              "the host's KVM does not accept {:#x} in MSR {:#x}", refused.value,
                              refused.index);
        }
        return {};
    }

 private:
    KernelCalls& calls_;
    BorrowedFd vcpu_;
};

Result<> read_special(const Access& vcpu, const VcpuParts& parts, VcpuState& state) {
    MIG_TRY(state.sregs, vcpu.read<kvm_sregs>(KVM_GET_SREGS, "ioctl(KVM_GET_SREGS)"));
    if (!parts.sregs2) return {};
    MIG_TRY(const kvm_sregs2 more, vcpu.read<kvm_sregs2>(KVM_GET_SREGS2, "ioctl(KVM_GET_SREGS2)"));
    if ((more.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0) {
        std::ranges::copy(more.pdptrs, state.pdptrs.emplace().begin());
    }
    return {};
}

kvm_sregs2 with_pdptrs(const kvm_sregs& sregs, const std::array<uint64_t, 4>& pdptrs) {
    kvm_sregs2 out{};
    // Both begin alike, up to the APIC's base.
    static_assert(offsetof(kvm_sregs, apic_base) == offsetof(kvm_sregs2, apic_base));
    std::memcpy(&out, &sregs, offsetof(kvm_sregs, apic_base) + sizeof(sregs.apic_base));
    out.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
    std::ranges::copy(pdptrs, out.pdptrs);
    return out;
}

Result<> write_special(const Access& vcpu, const VcpuState& state) {
    if (!state.pdptrs) return vcpu.write(KVM_SET_SREGS, state.sregs, "ioctl(KVM_SET_SREGS)");
    return vcpu.write(KVM_SET_SREGS2, with_pdptrs(state.sregs, *state.pdptrs),
                      "ioctl(KVM_SET_SREGS2)");
}

Result<> check_msrs(const VcpuParts& parts, const std::vector<Msr>& msrs) {
    for (const Msr& msr : msrs) {
        if (std::ranges::find(parts.msrs, msr.index) == parts.msrs.end()) {
            return lacks(fmt::format("MSR {:#x}", msr.index));
        }
    }
    return {};
}

// Everything that this host lacks, before anything is changed.
Result<> check_parts(const VcpuParts& parts, const VcpuState& state) {
    if (state.pdptrs && !parts.sregs2) return lacks("PAE pointers (KVM_SET_SREGS2)");
    if (!state.xsave.empty() && !parts.xsave) return lacks("XSAVE area");
    if (state.xsave.size() > parts.xsave_bytes) {
        return lacks(fmt::format("XSAVE area of {} bytes (its own has {})", state.xsave.size(),
                                 parts.xsave_bytes));
    }
    if (state.xcrs && !parts.xcrs) return lacks("extended control registers (XCRs)");
    if (state.debug_registers && !parts.debug_registers) return lacks("debug registers");
    if (state.lapic && !parts.lapic) return lacks("local APIC");
    if (state.events && !parts.events) return lacks("pending events");
    if (state.mp_state && !parts.mp_state) return lacks("multiprocessor state");
    return check_msrs(parts, state.msrs);
}

// A kernel that cannot scale accepts its own frequency only, or one close to it.
Result<> write_frequency(const Access& vcpu, const VcpuParts& parts, uint32_t khz) {
    if (khz == 0) return {};
    uint32_t ours = 0;
    if (parts.tsc_khz) {
        MIG_TRY(ours, vcpu.read_tsc_khz());
    }
    if (ours == khz) return {};
    MIG_CHECK(vcpu.write_tsc_khz(khz),
              "the guest's time stamp counter runs at {} kHz, the host's at {}, and it does not "
              "scale",
              khz, ours);
    return {};
}

Result<> write_processor(const Access& vcpu, const VcpuParts& parts, const VcpuState& state) {
    if (state.mp_state) {
        MIG_CHECK(
            vcpu.write(KVM_SET_MP_STATE, kvm_mp_state{*state.mp_state}, "ioctl(KVM_SET_MP_STATE)"));
    }
    MIG_CHECK(vcpu.write(KVM_SET_REGS, state.regs, "ioctl(KVM_SET_REGS)"));
    MIG_CHECK(write_special(vcpu, state));
    if (state.fpu) MIG_CHECK(vcpu.write(KVM_SET_FPU, *state.fpu, "ioctl(KVM_SET_FPU)"));
    if (!state.xsave.empty()) MIG_CHECK(vcpu.write_xsave(state.xsave, parts.xsave_bytes));
    if (state.xcrs) MIG_CHECK(vcpu.write(KVM_SET_XCRS, *state.xcrs, "ioctl(KVM_SET_XCRS)"));
    if (state.debug_registers) {
        MIG_CHECK(
            vcpu.write(KVM_SET_DEBUGREGS, *state.debug_registers, "ioctl(KVM_SET_DEBUGREGS)"));
    }
    return {};
}

// The deadline of the APIC's timer counts in time stamps, so that comes after all others.
std::vector<Msr> in_order(const std::vector<Msr>& msrs) {
    const auto is_deadline = [](const Msr& msr) { return msr.index == kTscDeadline; };
    std::vector<Msr> ordered;
    std::ranges::remove_copy_if(msrs, std::back_inserter(ordered), is_deadline);
    std::ranges::copy_if(msrs, std::back_inserter(ordered), is_deadline);
    return ordered;
}

std::vector<uint32_t> usable_msrs(const Access& vcpu, const std::vector<uint32_t>& listed) {
    std::vector<uint32_t> usable;
    for (const uint32_t index : listed) {
        const auto value = vcpu.read_msrs({index});
        if (value && vcpu.write_msrs(*value)) usable.push_back(index);
    }
    return usable;
}

}  // namespace

Result<VcpuParts> probe_parts(const Kvm& kvm, BorrowedFd fd) {
    const Capabilities& host = kvm.capabilities();
    const Access vcpu(kvm.calls(), fd);
    VcpuParts parts;
    MIG_CHECK(vcpu.read<kvm_regs>(KVM_GET_REGS, "ioctl(KVM_GET_REGS)"));
    parts.sregs2 = vcpu.works<kvm_sregs2>(host.sregs2, KVM_GET_SREGS2, KVM_SET_SREGS2);
    parts.xsave_bytes = host.xsave_bytes;
    if (host.xsave) {
        auto area = vcpu.read_xsave(parts.xsave_bytes);
        parts.xsave = area && vcpu.write_xsave(*area, parts.xsave_bytes);
    }
    parts.xcrs = vcpu.works<kvm_xcrs>(host.xcrs, KVM_GET_XCRS, KVM_SET_XCRS);
    parts.debug_registers =
        vcpu.works<kvm_debugregs>(host.debug_registers, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS);
    parts.lapic = vcpu.works<kvm_lapic_state>(true, KVM_GET_LAPIC, KVM_SET_LAPIC);
    parts.events =
        vcpu.works<kvm_vcpu_events>(host.events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS);
    parts.mp_state = vcpu.works<kvm_mp_state>(host.mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE);
    parts.tsc_khz = host.tsc_khz && vcpu.read_tsc_khz();
    parts.msrs = usable_msrs(vcpu, kvm.msr_indices());
    return parts;
}

Result<VcpuState> read_vcpu_state(KernelCalls& calls, BorrowedFd fd, const VcpuParts& parts) {
    const Access vcpu(calls, fd);
    VcpuState state;
    if (parts.mp_state) {
        MIG_TRY(const auto mp,
                vcpu.read<kvm_mp_state>(KVM_GET_MP_STATE, "ioctl(KVM_GET_MP_STATE)"));
        state.mp_state = mp.mp_state;
    }
    MIG_TRY(state.regs, vcpu.read<kvm_regs>(KVM_GET_REGS, "ioctl(KVM_GET_REGS)"));
    MIG_CHECK(read_special(vcpu, parts, state));
    if (parts.xsave) {
        MIG_TRY(state.xsave, vcpu.read_xsave(parts.xsave_bytes));
    } else {
        MIG_TRY(state.fpu, vcpu.read<kvm_fpu>(KVM_GET_FPU, "ioctl(KVM_GET_FPU)"));
    }
    if (parts.xcrs) {
        MIG_TRY(state.xcrs, vcpu.read<kvm_xcrs>(KVM_GET_XCRS, "ioctl(KVM_GET_XCRS)"));
    }
    if (parts.debug_registers) {
        MIG_TRY(state.debug_registers,
                vcpu.read<kvm_debugregs>(KVM_GET_DEBUGREGS, "ioctl(KVM_GET_DEBUGREGS)"));
    }
    if (parts.lapic) {
        MIG_TRY(state.lapic, vcpu.read<kvm_lapic_state>(KVM_GET_LAPIC, "ioctl(KVM_GET_LAPIC)"));
    }
    if (parts.tsc_khz) {
        MIG_TRY(state.tsc_khz, vcpu.read_tsc_khz());
    }
    MIG_TRY(state.msrs, vcpu.read_msrs(parts.msrs));
    if (parts.events) {
        MIG_TRY(state.events,
                vcpu.read<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS, "ioctl(KVM_GET_VCPU_EVENTS)"));
    }
    return state;
}

Result<> write_vcpu_state(KernelCalls& calls, BorrowedFd fd, const VcpuParts& parts,
                          const VcpuState& state) {
    const Access vcpu(calls, fd);
    MIG_CHECK(check_parts(parts, state));
    MIG_CHECK(write_frequency(vcpu, parts, state.tsc_khz));
    MIG_CHECK(write_processor(vcpu, parts, state));
    if (state.lapic) MIG_CHECK(vcpu.write(KVM_SET_LAPIC, *state.lapic, "ioctl(KVM_SET_LAPIC)"));
    MIG_CHECK(vcpu.write_msrs(in_order(state.msrs)));
    if (state.events) {
        MIG_CHECK(vcpu.write(KVM_SET_VCPU_EVENTS, *state.events, "ioctl(KVM_SET_VCPU_EVENTS)"));
    }
    return {};
}

}  // namespace ferry::kvm
