// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/kvm.h"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "accel/kvm/dirty-ring.h"
#include "accel/kvm/probe.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::kvm {

namespace {

// Of what the kernel may list; Linux has about 100 leaves and 200 registers.
constexpr size_t kMaxCpuidEntries = 256;
constexpr size_t kMaxMsrIndices = 4096;
// Where a VM would not run, or not be possible to stop and move.
struct Indispensable {
    int capability;
    std::string_view name;
};
constexpr Indispensable kIndispensable[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
};

}  // namespace

std::string_view to_string(DirtyLogMode mode) {
    switch (mode) {
        case DirtyLogMode::None: return "none";
        case DirtyLogMode::Plain: return "plain";
        case DirtyLogMode::Manual: return "manual";
        case DirtyLogMode::Ring: return "ring";
    }
    return "invalid";
}

Result<std::unique_ptr<Kvm>> Kvm::open(const std::string& path, KernelCalls& calls) {
    MIG_TRY(UniqueFd fd, util::open_file(path, O_RDWR), "KVM");
    std::unique_ptr<Kvm> kvm(new Kvm(calls, std::move(fd)));
    MIG_CHECK(kvm->check_version());
    MIG_CHECK(kvm->require_capabilities(), "KVM");
    MIG_CHECK(kvm->read_capabilities(), "KVM");
    MIG_CHECK(kvm->read_supported_cpuid(), "KVM");
    MIG_CHECK(kvm->read_msr_indices(), "KVM");
    MIG_TRY(kvm->capabilities_.dirty_log, probe_run(*kvm), "KVM: a guest of a few instructions");
    return kvm;
}

Result<> Kvm::check_version() const {
    MIG_TRY(const int version,
            calls_.ioctl_value(fd(), KVM_GET_API_VERSION, 0, "ioctl(KVM_GET_API_VERSION)"), "KVM");
    if (version != uapi::kApiVersion) {
        return make_error(ErrorKind::Unsupported, "KVM: API version {} where {} is needed", version,
                          uapi::kApiVersion);
    }
    return {};
}

Result<int> Kvm::extension(int capability) const {
    return calls_.ioctl_value(fd(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability),
                              "ioctl(KVM_CHECK_EXTENSION)");
}

Result<> Kvm::require_capabilities() const {
    for (const Indispensable& wanted : kIndispensable) {
        MIG_TRY(const int value, extension(wanted.capability));
        if (value == 0) {
            return make_error(ErrorKind::Unsupported, "the host's kernel lacks {}", wanted.name);
        }
    }
    return {};
}

Result<> Kvm::read_capabilities() {
    // 0 where the kernel does not know the capability.
    const auto value = [this](int capability) { return extension(capability).value_or(0); };
    const auto has = [&](int capability) { return value(capability) > 0; };
    Capabilities& c = capabilities_;
    c.max_vcpus = static_cast<unsigned>(std::max({value(KVM_CAP_MAX_VCPUS), 1}));
    c.max_slots = static_cast<unsigned>(value(KVM_CAP_NR_MEMSLOTS));
    c.xsave = has(KVM_CAP_XSAVE);
    c.xsave_bytes =
        std::max(uapi::kXsaveBytes, static_cast<size_t>(std::max(value(KVM_CAP_XSAVE2), 0)));
    c.xcrs = has(KVM_CAP_XCRS);
    c.debug_registers = has(KVM_CAP_DEBUGREGS);
    c.sregs2 = has(KVM_CAP_SREGS2);
    c.events = has(KVM_CAP_VCPU_EVENTS);
    c.mp_state = has(KVM_CAP_MP_STATE);
    c.tsc_khz = has(KVM_CAP_GET_TSC_KHZ);
    c.pit = has(KVM_CAP_PIT2) && has(KVM_CAP_PIT_STATE2);
    c.clock = has(KVM_CAP_ADJUST_CLOCK);
    c.irq_routing = has(KVM_CAP_IRQ_ROUTING);
    c.signal_msi = has(KVM_CAP_SIGNAL_MSI);
    c.irqfd = has(KVM_CAP_IRQFD);
    c.irqfd_resample = has(KVM_CAP_IRQFD_RESAMPLE);
    c.ioeventfd = has(KVM_CAP_IOEVENTFD);
    if (has(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)) c.dirty_log = DirtyLogMode::Manual;
    MIG_TRY(const int bytes,
            calls_.ioctl_value(fd(), KVM_GET_VCPU_MMAP_SIZE, 0, "ioctl(KVM_GET_VCPU_MMAP_SIZE)"));
    if (static_cast<size_t>(bytes) < sizeof(kvm_run)) {
        return make_error(ErrorKind::Unsupported, "the kernel shares {} bytes per vCPU, not {}",
                          bytes, sizeof(kvm_run));
    }
    run_bytes_ = static_cast<size_t>(bytes);
    return {};
}

Result<> Kvm::read_supported_cpuid() {
    uapi::Cpuid list(kMaxCpuidEntries);
    MIG_CHECK(
        calls_.get(fd(), uapi::kGetSupportedCpuid, list.data(), "ioctl(KVM_GET_SUPPORTED_CPUID)"));
    const auto entries =
        list.entries().first(std::min<size_t>(list.header().count, kMaxCpuidEntries));
    supported_cpuid_.assign(entries.begin(), entries.end());
    return {};
}

Result<> Kvm::read_msr_indices() {
    constexpr std::string_view kCall = "ioctl(KVM_GET_MSR_INDEX_LIST)";
    uapi::MsrList probe(0);  // the kernel answers with how many there are
    if (auto size = calls_.get(fd(), uapi::kGetMsrIndexList, probe.data(), kCall);
        !size && size.error().errnum() != E2BIG) {
        return size;
    }
    const size_t count = probe.header().count;
    if (count > kMaxMsrIndices) {
        return make_error(ErrorKind::LimitExceeded, "the kernel lists {} MSRs, more than {}", count,
                          kMaxMsrIndices);
    }
    uapi::MsrList list(count);
    MIG_CHECK(calls_.get(fd(), uapi::kGetMsrIndexList, list.data(), kCall));
    const auto indices = list.entries().first(std::min<size_t>(list.header().count, count));
    msr_indices_.assign(indices.begin(), indices.end());
    return {};
}

Result<> Kvm::use_dirty_ring(uint32_t entries) {
    if (!std::has_single_bit(entries)) {
        return make_error(ErrorKind::InvalidArgument,
                          "dirty-ring-size={}: the size must be a power of two", entries);
    }
    // The second promises the order of memory accesses that the first has on x86 anyway.
    for (const int capability : {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING}) {
        const int most = extension(capability).value_or(0);
        if (most <= 0) continue;
        if (DirtyRings::bytes_of(entries) > static_cast<uint64_t>(most)) {
            return make_error(ErrorKind::InvalidArgument,
                              "dirty-ring-size={}: the host's KVM allows at most {}", entries,
                              static_cast<uint64_t>(most) / DirtyRings::bytes_of(1));
        }
        Capabilities wanted = capabilities_;
        wanted.dirty_log = DirtyLogMode::Ring;
        wanted.dirty_ring = capability;
        wanted.dirty_ring_entries = entries;
        const Capabilities before = std::exchange(capabilities_, wanted);
        auto works = probe_dirty_ring(*this);
        if (works) return {};
        capabilities_ = before;
        return std::move(works).error().context(
            fmt::format("dirty-ring-size={}: the host's dirty ring does not work", entries));
    }
    return make_error(ErrorKind::Unsupported,
                      "dirty-ring-size={}: the host's KVM has no dirty ring; leave it out",
                      entries);
}

Result<UniqueFd> Kvm::create_vm() const {
    return calls_.ioctl_fd(fd(), KVM_CREATE_VM, 0, "ioctl(KVM_CREATE_VM)");
}

}  // namespace ferry::kvm
