// SPDX-License-Identifier: BSD-2-Clause
// The vmstate of CPUs and VM: what is put in comes out, and impossible images are refused.
#include <gtest/gtest.h>

#include <algorithm>

#include "migration/stream.h"
#include "system/vmm/kvm-state.h"

namespace ferry::test {
namespace {

using kvm::VcpuState;

template <typename T>
T patterned(uint8_t seed) {
    T value{};
    for (auto& byte : std::as_writable_bytes(std::span(&value, 1))) byte = std::byte{seed++};
    return value;
}
template <typename T>
bool same(const T& a, const T& b) {
    return std::ranges::equal(std::as_bytes(std::span(&a, 1)), std::as_bytes(std::span(&b, 1)));
}

VcpuState full_state() {
    VcpuState state;
    state.regs = patterned<kvm_regs>(1);
    state.sregs = patterned<kvm_sregs>(2);
    state.pdptrs = {1, 2, 3, 4};
    state.xsave.assign(6000, std::byte{0x33});
    state.xcrs = patterned<kvm_xcrs>(3);
    state.debug_registers = patterned<kvm_debugregs>(4);
    state.lapic = patterned<kvm_lapic_state>(5);
    state.events = patterned<kvm_vcpu_events>(6);
    state.mp_state = 3;
    state.tsc_khz = 2'600'000;
    state.msrs = {{0x10, 77}, {0xc000'0081, UINT64_MAX}};
    return state;
}

const std::vector<kvm::FeatureWord> kFeatures{{7, 0, kvm::CpuidRegister::Ebx, 0x1234},
                                              {1, 0, kvm::CpuidRegister::Edx, 0xffff'ffff}};

std::vector<std::byte> saved(vmm::VcpuImage& image) {
    migration::MemorySink sink;
    migration::SaveStream out(sink);
    vmm::vcpu_vmstate().save(&image, out);
    EXPECT_TRUE(out.flush());
    return sink.take();
}

Result<std::unique_ptr<vmm::VcpuImage>> loaded(ConstBytes bytes) {
    auto image = std::make_unique<vmm::VcpuImage>();
    migration::MemorySource source(bytes);
    migration::LoadStream in(source);
    auto done = vmm::vcpu_vmstate().load(image.get(), in, vmm::vcpu_vmstate().version());
    if (!done) return std::move(done).error();
    return image;
}

std::unique_ptr<vmm::VcpuImage> image_of(const VcpuState& state) {
    auto image = std::make_unique<vmm::VcpuImage>();
    EXPECT_TRUE(vmm::put_state(*image, state, kFeatures));
    return image;
}

TEST(KvmStateImage, AFullCpuComesOutAsItWentIn) {
    const VcpuState before = full_state();
    const auto image = loaded(saved(*image_of(before)));
    ASSERT_TRUE(image);
    const auto after = vmm::state_of(**image);
    ASSERT_TRUE(after);
    EXPECT_TRUE(same(before.regs, after->regs));
    EXPECT_TRUE(same(before.sregs, after->sregs));
    EXPECT_EQ(before.pdptrs, after->pdptrs);
    EXPECT_EQ(before.xsave, after->xsave);
    EXPECT_TRUE(same(*before.xcrs, *after->xcrs));
    EXPECT_TRUE(same(*before.debug_registers, *after->debug_registers));
    EXPECT_TRUE(same(*before.lapic, *after->lapic));
    EXPECT_TRUE(same(*before.events, *after->events));
    EXPECT_EQ(before.mp_state, after->mp_state);
    EXPECT_EQ(before.tsc_khz, after->tsc_khz);
    EXPECT_EQ(before.msrs, after->msrs);
    EXPECT_FALSE(after->fpu);
    EXPECT_EQ(vmm::features_of(**image), kFeatures);
}

TEST(KvmStateImage, WhatIsNotThereDoesNotCome) {
    VcpuState before;
    before.fpu = patterned<kvm_fpu>(9);
    const auto image = loaded(saved(*image_of(before)));
    ASSERT_TRUE(image);
    const auto after = vmm::state_of(**image);
    ASSERT_TRUE(after);
    EXPECT_TRUE(after->fpu && same(*before.fpu, *after->fpu));
    EXPECT_TRUE(after->xsave.empty() && after->msrs.empty());
    EXPECT_FALSE(after->pdptrs || after->xcrs || after->debug_registers || after->lapic ||
                 after->events || after->mp_state);
}

TEST(KvmStateImage, ImpossibleCountsFromAPeerAreRefused) {
    const auto image = image_of(full_state());
    image->msr_count = vmm::VcpuImage::kMaxMsrs + 1;
    EXPECT_FALSE(vmm::state_of(*image));
    image->msr_count = 0;
    image->xsave_rest_bytes = vmm::VcpuImage::kMaxXsaveRest + 1;
    EXPECT_FALSE(vmm::state_of(*image));
    image->feature_count = UINT32_MAX;
    EXPECT_FALSE(vmm::features_of(*image));
    image->feature_count = 1;
    image->features[11] = std::byte{9};  // the register's number
    EXPECT_FALSE(vmm::features_of(*image));
}

TEST(KvmStateImage, MoreThanAnImageHoldsIsRefusedWhenSaving) {
    vmm::VcpuImage image;
    VcpuState state = full_state();
    state.msrs.resize(vmm::VcpuImage::kMaxMsrs + 1);
    EXPECT_FALSE(vmm::put_state(image, state, {}));
    state = full_state();
    state.xsave.resize(kvm::uapi::kXsaveBytes + vmm::VcpuImage::kMaxXsaveRest + 1);
    EXPECT_FALSE(vmm::put_state(image, state, {}));
}

TEST(KvmStateImage, ATruncatedCpuIsAnError) {
    const auto bytes = saved(*image_of(full_state()));
    constexpr size_t kStep = 97;
    const ConstBytes whole(bytes);
    for (size_t length = 0; length + kStep < bytes.size(); length += kStep) {
        const auto image = loaded(whole.first(length));
        // An end between two subsections is only found by whoever reads the frame around it.
        EXPECT_FALSE(image && (*image)->has_mp_state) << length;
    }
}

TEST(KvmStateImage, TheSharedPartsComeOutAsTheyWentIn) {
    kvm::VmState before;
    before.pic_master.chip.pic.imr = 0xaa;
    before.pic_slave.chip.pic.imr = 0xbb;
    before.ioapic.chip.ioapic.id = 5;
    before.pit = patterned<kvm_pit_state2>(7);
    before.clock_ns = 123'456'789;
    vmm::KvmVmImage image{};
    image.vcpus = 3;
    vmm::put_state(image, before);
    migration::MemorySink sink;
    migration::SaveStream out(sink);
    vmm::kvm_vm_vmstate().save(&image, out);
    ASSERT_TRUE(out.flush());
    migration::MemorySource source(sink.view());
    migration::LoadStream in(source);
    vmm::KvmVmImage arrived{};
    ASSERT_TRUE(vmm::kvm_vm_vmstate().load(&arrived, in, 1));
    const kvm::VmState after = vmm::state_of(arrived);
    EXPECT_EQ(arrived.vcpus, 3U);
    EXPECT_EQ(after.pic_master.chip.pic.imr, 0xaa);
    EXPECT_EQ(after.pic_slave.chip.pic.imr, 0xbb);
    EXPECT_EQ(after.ioapic.chip.ioapic.id, 5U);
    EXPECT_TRUE(same(*before.pit, *after.pit));
    EXPECT_EQ(before.clock_ns, after.clock_ns);
}

}  // namespace
}  // namespace ferry::test
