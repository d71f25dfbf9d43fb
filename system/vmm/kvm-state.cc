// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/kvm-state.h"

#include <bit>
#include <cstring>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::vmm {

namespace {

using migration::SectionId;
using migration::VMState;
using migration::VMStateDescription;

constexpr uint32_t kVersion = 1;

template <typename T>
ImageOf<T> image_of(const T& value) {
    return std::bit_cast<ImageOf<T>>(value);
}
template <typename T>
T value_of(const ImageOf<T>& image) {
    return std::bit_cast<T>(image);
}

// A subsection of one image; having come is all that `present` says.
template <typename Object, size_t N>
VMStateDescription part(std::string name, bool Object::* present, Image<N> Object::* image) {
    return VMState<Object>(std::move(name), kVersion, kVersion)
        .buffer("image", image)
        .post_load([present](Object& object, uint32_t) -> Result<> {
            object.*present = true;
            return {};
        })
        .build();
}
template <typename Object, typename V>
VMStateDescription value_part(std::string name, bool Object::* present, V Object::* value) {
    return VMState<Object>(std::move(name), kVersion, kVersion)
        .field("value", value)
        .post_load([present](Object& object, uint32_t) -> Result<> {
            object.*present = true;
            return {};
        })
        .build();
}
template <typename Object>
std::function<bool(const Object&)> present(bool Object::* flag) {
    return [flag](const Object& object) { return object.*flag; };
}

using Register = unsigned long long VcpuImage::*;
Register general(unsigned long long kvm_regs::* member) {
    return static_cast<Register>(member);
}

VMState<VcpuImage>& add_general_registers(VMState<VcpuImage>& to) {
    return to.field("rax", general(&kvm_regs::rax))
        .field("rbx", general(&kvm_regs::rbx))
        .field("rcx", general(&kvm_regs::rcx))
        .field("rdx", general(&kvm_regs::rdx))
        .field("rsi", general(&kvm_regs::rsi))
        .field("rdi", general(&kvm_regs::rdi))
        .field("rsp", general(&kvm_regs::rsp))
        .field("rbp", general(&kvm_regs::rbp))
        .field("r8", general(&kvm_regs::r8))
        .field("r9", general(&kvm_regs::r9))
        .field("r10", general(&kvm_regs::r10))
        .field("r11", general(&kvm_regs::r11))
        .field("r12", general(&kvm_regs::r12))
        .field("r13", general(&kvm_regs::r13))
        .field("r14", general(&kvm_regs::r14))
        .field("r15", general(&kvm_regs::r15))
        .field("rip", general(&kvm_regs::rip))
        .field("rflags", general(&kvm_regs::rflags));
}

// Not "xsave-...": a name that begins with a sibling's would be read as a part of that one.
VMStateDescription xsave_rest_part() {
    return VMState<VcpuImage>("ferry-vcpu/more-xsave", kVersion, kVersion)
        .field("bytes", &VcpuImage::xsave_rest_bytes)
        .buffer("image", &VcpuImage::xsave_rest)
        .post_load([](VcpuImage& image, uint32_t) -> Result<> {
            image.has_xsave_rest = true;
            return {};
        })
        .build();
}

VMStateDescription describe_vcpu() {
    using V = VcpuImage;
    VMState<V> state("ferry-vcpu", kVersion, kVersion);
    // The features first: a host that lacks one needs to read no further.
    state.field("feature_count", &V::feature_count).buffer("features", &V::features);
    add_general_registers(state)
        .buffer("sregs", &V::sregs)
        .field("tsc_khz", &V::tsc_khz)
        .field("msr_count", &V::msr_count)
        .buffer("msrs", &V::msrs);
    return state
        .subsection(part("ferry-vcpu/pdptrs", &V::has_pdptrs, &V::pdptrs), present(&V::has_pdptrs))
        .subsection(part("ferry-vcpu/fpu", &V::has_fpu, &V::fpu), present(&V::has_fpu))
        .subsection(part("ferry-vcpu/xsave", &V::has_xsave, &V::xsave), present(&V::has_xsave))
        .subsection(xsave_rest_part(), present(&V::has_xsave_rest))
        .subsection(part("ferry-vcpu/xcrs", &V::has_xcrs, &V::xcrs), present(&V::has_xcrs))
        .subsection(part("ferry-vcpu/debugregs", &V::has_debug_registers, &V::debug_registers),
                    present(&V::has_debug_registers))
        .subsection(part("ferry-vcpu/lapic", &V::has_lapic, &V::lapic), present(&V::has_lapic))
        .subsection(part("ferry-vcpu/events", &V::has_events, &V::events), present(&V::has_events))
        .subsection(value_part("ferry-vcpu/mp-state", &V::has_mp_state, &V::mp_state),
                    present(&V::has_mp_state))
        .build();
}

VMStateDescription describe_vm() {
    using V = KvmVmImage;
    return VMState<V>("ferry-kvm", kVersion, kVersion)
        .field("vcpus", &V::vcpus)
        .buffer("pic_master", &V::pic_master)
        .buffer("pic_slave", &V::pic_slave)
        .buffer("ioapic", &V::ioapic)
        .subsection(part("ferry-kvm/pit", &V::has_pit, &V::pit), present(&V::has_pit))
        .subsection(value_part("ferry-kvm/clock", &V::has_clock, &V::clock_ns),
                    present(&V::has_clock))
        .build();
}

Error too_many(std::string_view what, size_t count, size_t limit) {
    return make_error(ErrorKind::LimitExceeded, "{} {} of a CPU, more than {}", count, what, limit);
}

}  // namespace

const VMStateDescription& vcpu_vmstate() {
    static const VMStateDescription kDescription = describe_vcpu();
    return kDescription;
}

const VMStateDescription& kvm_vm_vmstate() {
    static const VMStateDescription kDescription = describe_vm();
    return kDescription;
}

// --- One CPU

namespace {

Result<> put_features(VcpuImage& image, const std::vector<kvm::FeatureWord>& features) {
    if (features.size() > VcpuImage::kMaxFeatureWords) {
        return too_many("feature words", features.size(), VcpuImage::kMaxFeatureWords);
    }
    image.feature_count = static_cast<uint32_t>(features.size());
    util::WireWriter words;
    for (const kvm::FeatureWord& word : features) {
        words.be32(word.leaf)
            .be32(word.subleaf)
            .be32(static_cast<uint32_t>(word.which))
            .be32(word.bits);
    }
    std::ranges::copy(words.view(), image.features.begin());
    return {};
}

Result<> put_msrs(VcpuImage& image, const std::vector<kvm::Msr>& msrs) {
    if (msrs.size() > VcpuImage::kMaxMsrs) {
        return too_many("MSRs", msrs.size(), VcpuImage::kMaxMsrs);
    }
    image.msr_count = static_cast<uint32_t>(msrs.size());
    util::WireWriter words;
    for (const kvm::Msr& msr : msrs) words.be32(msr.index).be64(msr.value);
    std::ranges::copy(words.view(), image.msrs.begin());
    return {};
}

Result<> put_xsave(VcpuImage& image, ConstBytes area) {
    if (area.empty()) return {};
    constexpr size_t kLimit = kvm::uapi::kXsaveBytes + VcpuImage::kMaxXsaveRest;
    if (area.size() < kvm::uapi::kXsaveBytes || area.size() > kLimit) {
        return too_many("bytes of XSAVE", area.size(), kLimit);
    }
    image.has_xsave = true;
    const ConstBytes rest = area.subspan(kvm::uapi::kXsaveBytes);
    std::ranges::copy(area.first(kvm::uapi::kXsaveBytes), image.xsave.begin());
    image.has_xsave_rest = !rest.empty();
    image.xsave_rest_bytes = static_cast<uint32_t>(rest.size());
    std::ranges::copy(rest, image.xsave_rest.begin());
    return {};
}

template <typename T>
void put_optional(const std::optional<T>& value, bool& has, ImageOf<T>& image) {
    has = value.has_value();
    if (value) image = image_of(*value);
}

template <typename T>
std::optional<T> optional_of(bool has, const ImageOf<T>& image) {
    if (!has) return std::nullopt;
    return value_of<T>(image);
}

Result<std::vector<std::byte>> xsave_of(const VcpuImage& image) {
    if (!image.has_xsave) return std::vector<std::byte>();
    std::vector<std::byte> area(image.xsave.begin(), image.xsave.end());
    if (!image.has_xsave_rest) return area;
    if (image.xsave_rest_bytes > image.xsave_rest.size()) {
        return make_error(ErrorKind::Protocol, "{} more bytes of XSAVE, but only {} are possible",
                          image.xsave_rest_bytes, image.xsave_rest.size());
    }
    area.insert(area.end(), image.xsave_rest.begin(),
                image.xsave_rest.begin() + image.xsave_rest_bytes);
    return area;
}

Result<std::vector<kvm::Msr>> msrs_of(const VcpuImage& image) {
    if (image.msr_count > VcpuImage::kMaxMsrs) {
        return make_error(ErrorKind::Protocol, "{} MSRs, but only {} are possible", image.msr_count,
                          VcpuImage::kMaxMsrs);
    }
    util::WireReader words(image.msrs);
    std::vector<kvm::Msr> msrs;
    for (uint32_t i = 0; i < image.msr_count; ++i) {
        MIG_TRY(const uint32_t index, words.be32());
        MIG_TRY(const uint64_t value, words.be64());
        msrs.push_back({index, value});
    }
    return msrs;
}

}  // namespace

Result<> put_state(VcpuImage& image, const kvm::VcpuState& state,
                   const std::vector<kvm::FeatureWord>& features) {
    static_cast<kvm_regs&>(image) = state.regs;
    MIG_CHECK(put_features(image, features));
    MIG_CHECK(put_msrs(image, state.msrs));
    MIG_CHECK(put_xsave(image, state.xsave));
    image.sregs = image_of(state.sregs);
    image.tsc_khz = state.tsc_khz;
    put_optional(state.pdptrs, image.has_pdptrs, image.pdptrs);
    put_optional(state.fpu, image.has_fpu, image.fpu);
    put_optional(state.xcrs, image.has_xcrs, image.xcrs);
    put_optional(state.debug_registers, image.has_debug_registers, image.debug_registers);
    put_optional(state.lapic, image.has_lapic, image.lapic);
    put_optional(state.events, image.has_events, image.events);
    image.has_mp_state = state.mp_state.has_value();
    image.mp_state = state.mp_state.value_or(0);
    return {};
}

Result<kvm::VcpuState> state_of(const VcpuImage& image) {
    kvm::VcpuState state;
    state.regs = static_cast<const kvm_regs&>(image);
    MIG_TRY(state.msrs, msrs_of(image));
    MIG_TRY(state.xsave, xsave_of(image));
    state.sregs = value_of<kvm_sregs>(image.sregs);
    state.tsc_khz = image.tsc_khz;
    state.pdptrs =
        optional_of<std::array<uint64_t, VcpuImage::kPdptrs>>(image.has_pdptrs, image.pdptrs);
    state.fpu = optional_of<kvm_fpu>(image.has_fpu, image.fpu);
    state.xcrs = optional_of<kvm_xcrs>(image.has_xcrs, image.xcrs);
    state.debug_registers =
        optional_of<kvm_debugregs>(image.has_debug_registers, image.debug_registers);
    state.lapic = optional_of<kvm_lapic_state>(image.has_lapic, image.lapic);
    state.events = optional_of<kvm_vcpu_events>(image.has_events, image.events);
    if (image.has_mp_state) state.mp_state = image.mp_state;
    return state;
}

Result<std::vector<kvm::FeatureWord>> features_of(const VcpuImage& image) {
    if (image.feature_count > VcpuImage::kMaxFeatureWords) {
        return make_error(ErrorKind::Protocol, "{} feature words, but only {} are possible",
                          image.feature_count, VcpuImage::kMaxFeatureWords);
    }
    util::WireReader words(image.features);
    std::vector<kvm::FeatureWord> features;
    for (uint32_t i = 0; i < image.feature_count; ++i) {
        MIG_TRY(const uint32_t leaf, words.be32());
        MIG_TRY(const uint32_t subleaf, words.be32());
        MIG_TRY(const uint32_t raw, words.be32());
        MIG_TRY(const kvm::CpuidRegister which, kvm::cpuid_register_from_raw(raw));
        MIG_TRY(const uint32_t bits, words.be32());
        features.push_back({leaf, subleaf, which, bits});
    }
    return features;
}

// --- What they share

void put_state(KvmVmImage& image, const kvm::VmState& state) {
    image.pic_master = image_of(state.pic_master.chip);
    image.pic_slave = image_of(state.pic_slave.chip);
    image.ioapic = image_of(state.ioapic.chip);
    put_optional(state.pit, image.has_pit, image.pit);
    image.has_clock = state.clock_ns.has_value();
    image.clock_ns = state.clock_ns.value_or(0);
}

kvm::VmState state_of(const KvmVmImage& image) {
    kvm::VmState state;
    state.pic_master.chip = value_of<decltype(kvm_irqchip::chip)>(image.pic_master);
    state.pic_slave.chip = value_of<decltype(kvm_irqchip::chip)>(image.pic_slave);
    state.ioapic.chip = value_of<decltype(kvm_irqchip::chip)>(image.ioapic);
    state.pit = optional_of<kvm_pit_state2>(image.has_pit, image.pit);
    if (image.has_clock) state.clock_ns = image.clock_ns;
    return state;
}

// --- Sections

// What the two kinds have in common: all is in one section, and nothing happens in the live phases.
class KvmState::Section : public migration::SaveVMHandlers {
 public:
    Section(KvmState& owner, SectionId id) : owner_(owner), id_(std::move(id)) {}
    const SectionId& section() const override { return id_; }

    Result<> save_prepare(migration::SaveSession&) override { return {}; }
    Result<> save_setup(migration::SaveSession&, migration::SaveStream&) override { return {}; }
    uint64_t state_pending_estimate() override { return 0; }
    Result<uint64_t> state_pending_exact() override { return 0; }
    bool is_active_iterate() override { return false; }
    Result<migration::IterateStatus> save_live_iterate(migration::SaveStream&) override {
        return migration::IterateStatus::Done;
    }
    Result<> save_live_complete_precopy(migration::SaveStream&) override { return {}; }
    Sections sections() const override { return Sections::OneShot; }
    void save_cleanup(Outcome) noexcept override { owner_.forget(); }
    Result<> load_setup(migration::LoadSession&) override { return {}; }
    bool switchover_ack_needed() const override { return false; }
    Result<> switchover_start() override { return {}; }
    void load_cleanup(Outcome) noexcept override { owner_.forget(); }

 protected:
    KvmState& owner_;

 private:
    const SectionId id_;
};

class KvmState::VcpuSection final : public Section {
 public:
    VcpuSection(KvmState& owner, unsigned vcpu)
        : Section(owner, {.idstr = vcpu_vmstate().name(),
                          .instance_id = vcpu,
                          .version_id = vcpu_vmstate().version()}),
          vcpu_(vcpu) {}

    Result<> save_state(migration::SaveStream& out) override {
        MIG_TRY(const kvm::VcpuState* state, owner_.captured(vcpu_));
        auto image = std::make_unique<VcpuImage>();
        MIG_CHECK(put_state(*image, *state, owner_.vcpus_.features()));
        vcpu_vmstate().save(image.get(), out);
        return out.status();
    }
    Result<> load_state(migration::LoadStream& in, migration::SectionKind,
                        uint32_t version) override {
        auto image = std::make_unique<VcpuImage>();
        MIG_CHECK(vcpu_vmstate().load(image.get(), in, version));
        MIG_TRY(const auto theirs, features_of(*image));
        const auto missing = kvm::missing_features(theirs, owner_.vcpus_.features());
        if (!missing.empty()) {
            return make_error(ErrorKind::Unsupported,
                              "the guest uses a CPU with {}, which this VM's CPU lacks; start both "
                              "sides with a -cpu model that both hosts have",
                              fmt::join(missing, ", "));
        }
        owner_.loaded_[vcpu_] = std::move(image);
        return {};
    }
    // The VM's section applies everything, in order.
    void load_validate(system::Done done) override { done({}); }

 private:
    const unsigned vcpu_;
};

class KvmState::VmSection final : public Section {
 public:
    explicit VmSection(KvmState& owner)
        : Section(owner, {.idstr = kvm_vm_vmstate().name(),
                          .instance_id = 0,
                          .version_id = kvm_vm_vmstate().version()}) {}

    Result<> save_state(migration::SaveStream& out) override {
        MIG_TRY(const kvm::VmState state, owner_.vm_.state());
        KvmVmImage image{};
        image.vcpus = owner_.vcpus_.count();
        put_state(image, state);
        kvm_vm_vmstate().save(&image, out);
        return out.status();
    }
    Result<> load_state(migration::LoadStream& in, migration::SectionKind,
                        uint32_t version) override {
        KvmVmImage image{};
        MIG_CHECK(kvm_vm_vmstate().load(&image, in, version));
        image_ = image;
        return {};
    }
    void load_validate(system::Done done) override {
        if (!image_) {
            return done(make_error(ErrorKind::Protocol,
                                   "no section '{}' came: the source does not run with KVM",
                                   section().idstr));
        }
        const KvmVmImage image = *image_;
        image_.reset();
        owner_.apply(image, std::move(done));
    }
    void load_cleanup(Outcome outcome) noexcept override {
        image_.reset();
        Section::load_cleanup(outcome);
    }

 private:
    std::optional<KvmVmImage> image_;
};

KvmState::KvmState(kvm::KvmVm& vm, kvm::Vcpus& vcpus)
    : vm_(vm), vcpus_(vcpus), loaded_(vcpus.count()) {
    for (unsigned i = 0; i < vcpus.count(); ++i) {
        sections_.push_back(std::make_unique<VcpuSection>(*this, i));
    }
    sections_.push_back(std::make_unique<VmSection>(*this));
}

KvmState::~KvmState() = default;

Result<std::unique_ptr<KvmState>> KvmState::create(kvm::KvmVm& vm, kvm::Vcpus& vcpus,
                                                   migration::SaveVMRegistry& registry) {
    std::unique_ptr<KvmState> state(new KvmState(vm, vcpus));
    for (const auto& section : state->sections_) {
        MIG_TRY(auto registration, registry.add(*section));
        state->registrations_.push_back(std::move(registration));
    }
    return state;
}

Result<const kvm::VcpuState*> KvmState::captured(unsigned vcpu) {
    if (vcpu == 0) {
        MIG_TRY(captured_, vcpus_.read_states());
    }
    if (vcpu >= captured_.size()) {
        return make_error(ErrorKind::Internal, "CPU {} is saved before CPU 0", vcpu);
    }
    return &captured_[vcpu];
}

void KvmState::apply(const KvmVmImage& image, system::Done done) {
    if (image.vcpus != vcpus_.count()) {
        return done(make_error(ErrorKind::InvalidArgument,
                               "the source has {} CPUs and this VM {}; start both with the same "
                               "-smp",
                               image.vcpus, vcpus_.count()));
    }
    std::vector<kvm::VcpuState> states;
    for (unsigned i = 0; i < vcpus_.count(); ++i) {
        if (!loaded_[i]) {
            return done(make_error(ErrorKind::Protocol, "the state of CPU {} did not come", i));
        }
        auto state = state_of(*loaded_[i]);
        if (!state) return done(std::move(state).error().context(fmt::format("CPU {}", i)));
        states.push_back(std::move(*state));
    }
    vcpus_.write_states(std::move(states), [this, shared = state_of(image),
                                            done = std::move(done)](Result<> result) mutable {
        done(result ? vm_.set_state(shared) : std::move(result));
    });
}

void KvmState::forget() {
    captured_.clear();
    for (auto& image : loaded_) image.reset();
}

}  // namespace ferry::vmm
