// SPDX-License-Identifier: BSD-2-Clause
// How the state of a VM of KVM migrates: sections "ferry-vcpu", one per CPU, and "ferry-kvm" for
// what they share. Fields are versioned vmstate; what a host may lack is a subsection. Structures
// of the kernel travel as the images that x86's KVM defines (little-endian, fixed for ever).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "accel/kvm/features.h"
#include "accel/kvm/vcpu-state.h"
#include "accel/kvm/vcpus.h"
#include "accel/kvm/vm.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "util/registration.h"

namespace ferry::vmm {

template <size_t N>
using Image = std::array<std::byte, N>;
template <typename T>
using ImageOf = Image<sizeof(T)>;

// One CPU as vmstate describes it.
struct VcpuImage : kvm_regs {
    static constexpr size_t kMaxMsrs = 512;
    static constexpr size_t kMsrBytes = sizeof(uint32_t) + sizeof(uint64_t);
    static constexpr size_t kMaxFeatureWords = 64;
    static constexpr size_t kFeatureWordBytes = 4 * sizeof(uint32_t);
    static constexpr size_t kMaxXsaveRest = 12 * 1024;
    static constexpr size_t kPdptrs = 4;

    // Which of the optional parts are here.
    bool has_pdptrs = false, has_fpu = false, has_xsave = false, has_xsave_rest = false;
    bool has_xcrs = false, has_debug_registers = false, has_lapic = false, has_events = false;
    bool has_mp_state = false;

    uint32_t feature_count = 0;
    Image<kMaxFeatureWords * kFeatureWordBytes> features{};  // leaf, subleaf, register, bits
    uint32_t tsc_khz = 0;
    uint32_t msr_count = 0;
    Image<kMaxMsrs * kMsrBytes> msrs{};  // index, value
    ImageOf<kvm_sregs> sregs{};
    ImageOf<std::array<uint64_t, kPdptrs>> pdptrs{};
    ImageOf<kvm_fpu> fpu{};
    Image<kvm::uapi::kXsaveBytes> xsave{};
    uint32_t xsave_rest_bytes = 0;
    Image<kMaxXsaveRest> xsave_rest{};
    ImageOf<kvm_xcrs> xcrs{};
    ImageOf<kvm_debugregs> debug_registers{};
    ImageOf<kvm_lapic_state> lapic{};
    ImageOf<kvm_vcpu_events> events{};
    uint32_t mp_state = 0;
};
const migration::VMStateDescription& vcpu_vmstate();
// LimitExceeded when the host has more of something than an image holds.
Result<> put_state(VcpuImage& image, const kvm::VcpuState& state,
                   const std::vector<kvm::FeatureWord>& features);
// Of an image that came from a peer: Protocol when its counts are impossible.
Result<kvm::VcpuState> state_of(const VcpuImage& image);
Result<std::vector<kvm::FeatureWord>> features_of(const VcpuImage& image);

// What the CPUs share.
struct KvmVmImage {
    using Chip = ImageOf<decltype(kvm_irqchip::chip)>;
    bool has_pit = false, has_clock = false;
    uint32_t vcpus = 0;
    Chip pic_master{}, pic_slave{}, ioapic{};
    ImageOf<kvm_pit_state2> pit{};
    uint64_t clock_ns = 0;
};
const migration::VMStateDescription& kvm_vm_vmstate();
void put_state(KvmVmImage& image, const kvm::VmState& state);
kvm::VmState state_of(const KvmVmImage& image);

// The sections. Main loop thread; registered until it goes, and gone before VM and CPUs.
class KvmState {
 public:
    static Result<std::unique_ptr<KvmState>> create(kvm::KvmVm& vm, kvm::Vcpus& vcpus,
                                                    migration::SaveVMRegistry& registry);
    ~KvmState();
    KvmState(const KvmState&) = delete;
    KvmState& operator=(const KvmState&) = delete;

 private:
    class Section;
    class VcpuSection;
    class VmSection;
    KvmState(kvm::KvmVm& vm, kvm::Vcpus& vcpus);
    // Migration thread: the CPUs' state, read at the first one's turn.
    Result<const kvm::VcpuState*> captured(unsigned vcpu);
    // Main loop or load thread: all that was loaded.
    void apply(const KvmVmImage& image, system::Done done);
    void forget();

    kvm::KvmVm& vm_;
    kvm::Vcpus& vcpus_;
    std::vector<kvm::VcpuState> captured_;
    std::vector<std::unique_ptr<Section>> sections_;
    std::vector<std::unique_ptr<VcpuImage>> loaded_;  // null: did not come
    std::vector<util::Registration> registrations_;
};

}  // namespace ferry::vmm
