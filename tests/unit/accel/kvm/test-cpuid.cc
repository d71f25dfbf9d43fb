// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>

#include "accel/kvm/cpuid.h"

namespace ferry::test {
namespace {

using kvm::CpuidRegister;
using kvm::CpuidTable;

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                      uint32_t edx) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.index = index;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    return entry;
}

constexpr uint32_t kVmx = 1 << 5, kAvx2 = 1 << 5, kSvm = 1 << 2;

// Everything in the words that tests look at.
CpuidTable rich_host() {
    return {leaf(0, 0, 0x1f, 0, 0, 0),
            leaf(1, 0, 0x306c3, 0, 0xffff'ffff, 0xffff'ffff),
            leaf(4, 1, 0xfc00'0121, 0, 0, 0),  // level 1, data
            leaf(4, 3, 0xfc00'c163, 0, 0, 0),  // level 3
            leaf(7, 0, 0, 0xffff'ffff, 0, 0),
            leaf(0xa, 0, 0x0730'0404, 0, 0, 0),
            leaf(0xb, 0, 0, 0, 0, 0),
            leaf(0x1f, 0, 0, 0, 0, 0),
            leaf(0x4000'0000, 0, 0x4000'0001, 1, 2, 3),
            leaf(0x4000'0001, 0, 0xff, 0, 0, 0),
            leaf(0x8000'0000, 0, 0x8000'0021, 0, 0, 0),
            leaf(0x8000'0001, 0, 0, 0, 0xffff'ffff, 0xffff'ffff),
            leaf(0x8000'0008, 0, 0x3030, 7, 9, 0),
            leaf(0x8000'001e, 0, 0, 0, 0, 0)};
}

const kvm_cpuid_entry2* find(const CpuidTable& table, uint32_t function, uint32_t index = 0) {
    const auto found = std::ranges::find_if(table, [&](const kvm_cpuid_entry2& entry) {
        return entry.function == function && entry.index == index;
    });
    return found == table.end() ? nullptr : &*found;
}

TEST(KvmCpuid, HostIsTheHostWithoutWhatCannotMigrate) {
    const auto model = kvm::cpu_model("host", rich_host());
    ASSERT_TRUE(model);
    EXPECT_EQ(find(model->cpuid, 1)->ecx & kVmx, 0U);
    EXPECT_EQ(find(model->cpuid, 0x8000'0001)->ecx & kSvm, 0U);
    EXPECT_NE(find(model->cpuid, 7)->ebx & kAvx2, 0U);
    EXPECT_EQ(find(model->cpuid, 0xa), nullptr);
    EXPECT_TRUE(model->unavailable.empty());
}

TEST(KvmCpuid, ANamedModelHasItsFeaturesAndNoMore) {
    const auto model = kvm::cpu_model("qemu64", rich_host());
    ASSERT_TRUE(model);
    EXPECT_TRUE(model->unavailable.empty());
    EXPECT_EQ(find(model->cpuid, 7), nullptr);
    const auto wanted = kvm::words_with("sse2 lm nx cx16").value();
    EXPECT_TRUE(kvm::missing_features(wanted, kvm::feature_words(model->cpuid)).empty());
    // "AuthenticAMD"
    EXPECT_EQ(find(model->cpuid, 0)->ebx, 0x6874'7541U);
    EXPECT_EQ(find(model->cpuid, 0)->edx, 0x6974'6e65U);
    EXPECT_EQ(find(model->cpuid, 0)->ecx, 0x444d'4163U);
    EXPECT_EQ(find(model->cpuid, 1)->eax, 0x0006'0fb1U);  // family 15, model 107, stepping 1
    EXPECT_EQ(find(model->cpuid, 0x4000'0000)->ebx, 1U);  // KVM's own
    EXPECT_EQ(find(model->cpuid, 0x8000'0008)->eax, 0x3030U);
}

TEST(KvmCpuid, WhatAPoorHostLacksIsMaskedAndNamed) {
    CpuidTable host = rich_host();
    for (auto& entry : host) {
        if (entry.function == 1) entry.ecx &= ~(uint32_t{1} << 13);  // cx16
    }
    const auto model = kvm::cpu_model("kvm64", host);
    ASSERT_TRUE(model);
    EXPECT_EQ(model->unavailable, std::vector<std::string>{"cx16"});
    EXPECT_EQ(find(model->cpuid, 1)->ecx & (uint32_t{1} << 13), 0U);
}

Result<kvm::CpuModel> with(std::string_view model, std::string feature, bool shown) {
    using Shown = kvm::FeatureChoice::Shown;
    const kvm::FeatureChoice choice{std::move(feature), shown ? Shown::Yes : Shown::No};
    return kvm::cpu_model(model, rich_host(), {&choice, 1});
}

TEST(KvmCpuid, AFeatureNobodyCanGiveIsRefusedWithTheReason) {
    const auto reason = [](std::string_view model, std::string feature, bool shown) {
        const auto refused = with(model, std::move(feature), shown);
        EXPECT_FALSE(refused);
        return refused ? "" : refused.error().message();
    };
    EXPECT_EQ(reason("qemu64", "vmx", true),
              "CPU feature 'vmx': what a guest does with it can't be migrated");
    EXPECT_EQ(reason("host", "hypervisor", false),
              "CPU feature 'hypervisor' can't be chosen: it follows from the VM");
    EXPECT_EQ(reason("host", "warp-drive", true), "unknown CPU feature 'warp-drive'");
    EXPECT_EQ(reason("host", "", true), "'' is no CPU feature");
    EXPECT_EQ(reason("host", "sse sse2", true), "'sse sse2' is no CPU feature");
    CpuidTable host = rich_host();
    for (kvm_cpuid_entry2& entry : host) {
        if (entry.function == 7) entry.ebx &= ~kAvx2;
    }
    const kvm::FeatureChoice avx2{"avx2"};
    const auto poor = kvm::cpu_model("max", host, {&avx2, 1});
    ASSERT_FALSE(poor);
    EXPECT_EQ(poor.error().message(), "CPU feature 'avx2': the host does not have it");
}

TEST(KvmCpuid, AFeatureIsShownAndHiddenAlone) {
    const auto without = kvm::cpu_model("qemu64", rich_host());
    const auto more = with("qemu64", "avx2", true);
    ASSERT_TRUE(without && more);
    EXPECT_EQ(find(more->cpuid, 7)->ebx, kAvx2);
    EXPECT_EQ(find(more->cpuid, 1)->ecx, find(without->cpuid, 1)->ecx);
    const auto less = with("host", "avx2", false);
    ASSERT_TRUE(less);
    EXPECT_EQ(find(less->cpuid, 7)->ebx,
              find(kvm::cpu_model("host", rich_host())->cpuid, 7)->ebx & ~kAvx2);
}

TEST(KvmCpuid, AllNamesAreKnownAndOthersAreRefused) {
    for (const auto name : kvm::cpu_model_names()) {
        EXPECT_TRUE(kvm::cpu_model(name, rich_host())) << name;
    }
    const auto unknown = kvm::cpu_model("pentium9", rich_host());
    ASSERT_FALSE(unknown);
    EXPECT_NE(unknown.error().message().find("qemu64"), std::string::npos);
}

TEST(KvmCpuid, EachCpuHasItsNumberAndKnowsTheOthers) {
    const auto model = kvm::cpu_model("host", rich_host()).value();
    const CpuidTable third = kvm::cpuid_of_vcpu(model.cpuid, 2, 6);
    EXPECT_EQ(find(third, 1)->ebx >> 24, 2U);
    EXPECT_EQ(find(third, 1)->ebx >> 16 & 0xff, 6U);
    EXPECT_NE(find(third, 1)->edx & (1U << 28), 0U);
    EXPECT_EQ(find(third, 0xb, 0)->edx, 2U);
    EXPECT_EQ(find(third, 0xb, 0)->ebx, 1U);
    EXPECT_EQ(find(third, 0xb, 1)->eax, 3U);  // numbers of 3 bits
    EXPECT_EQ(find(third, 0xb, 1)->ebx, 6U);
    EXPECT_EQ(find(third, 0xb, 2)->ecx, 2U);  // no further level
    EXPECT_EQ(find(third, 0x1f), nullptr);
    EXPECT_EQ(find(third, 0x8000'0008)->ecx, 5U | 3U << 12);
    EXPECT_EQ(find(third, 0x8000'001e)->eax, 2U);
    EXPECT_EQ(find(third, 4, 1)->eax >> 14 & 0xfff, 0U);  // its own
    EXPECT_EQ(find(third, 4, 3)->eax >> 14 & 0xfff, 7U);  // shared
}

TEST(KvmCpuid, OneCpuIsAlone) {
    const auto model = kvm::cpu_model("host", rich_host()).value();
    const CpuidTable only = kvm::cpuid_of_vcpu(model.cpuid, 0, 1);
    EXPECT_EQ(find(only, 1)->edx & (1U << 28), 0U);
    EXPECT_EQ(find(only, 0xb, 1)->eax, 0U);
    EXPECT_EQ(find(only, 0x8000'0008)->ecx, 0U);
    EXPECT_EQ(find(only, 0x8000'0001)->ecx & 2, 0U);
}

TEST(KvmFeatures, MissingOnesAreNamedOrNumbered) {
    const std::vector<kvm::FeatureWord> theirs{{7, 0, CpuidRegister::Ebx, kAvx2 | 1U << 6},
                                               {0x1234, 1, CpuidRegister::Ecx, 1U << 31}};
    const std::vector<kvm::FeatureWord> host{{7, 0, CpuidRegister::Ebx, 0}};
    EXPECT_EQ(kvm::missing_features(theirs, host),
              (std::vector<std::string>{"avx2", "CPUID 7.0.ebx bit 6", "CPUID 1234.1.ecx bit 31"}));
}

TEST(KvmFeatures, AHostLacksNothingOfItself) {
    const auto words = kvm::feature_words(rich_host());
    EXPECT_TRUE(kvm::missing_features(words, words).empty());
}

TEST(KvmFeatures, BitsThatMirrorRegistersDoNotCount) {
    constexpr uint32_t kOsxsave = 1U << 27;
    const auto with = kvm::feature_words({leaf(1, 0, 0, 0, kOsxsave, 0)});
    const auto without = kvm::feature_words({leaf(1, 0, 0, 0, 0, 0)});
    EXPECT_EQ(with, without);
}

TEST(KvmFeatures, UnknownNamesAreRefused) {
    EXPECT_FALSE(kvm::words_with("fpu warp-drive"));
    EXPECT_FALSE(kvm::cpuid_register_from_raw(4));
}

}  // namespace
}  // namespace ferry::test
