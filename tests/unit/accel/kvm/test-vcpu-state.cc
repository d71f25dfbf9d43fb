// SPDX-License-Identifier: BSD-2-Clause
// What is asked of the kernel, in which order, and what a host that lacks a part says.
#include <gtest/gtest.h>

#include <algorithm>

#include "accel/kvm/vcpu-state.h"
#include "tests/unit/accel/kvm/fake-calls.h"

namespace ferry::test {
namespace {

using kvm::VcpuParts;
using kvm::VcpuState;

VcpuParts all_parts() {
    return {.sregs2 = true,
            .xsave = true,
            .xcrs = true,
            .debug_registers = true,
            .lapic = true,
            .events = true,
            .mp_state = true,
            .tsc_khz = true,
            .msrs = {0x6e0, 0x10, 0x174}};
}

class KvmVcpuState : public testing::Test {
 protected:
    KvmVcpuState() {
        const auto all = [](void* list) -> Result<int> {
            return static_cast<int>(static_cast<kvm::uapi::PaddedCountHeader*>(list)->count);
        };
        calls_.answers[kvm::uapi::kGetMsrs] = all;
        calls_.answers[kvm::uapi::kSetMsrs] = [this, all](void* list) -> Result<int> {
            const auto count = static_cast<kvm::uapi::PaddedCountHeader*>(list)->count;
            const auto* entries = reinterpret_cast<const kvm_msr_entry*>(
                static_cast<std::byte*>(list) + sizeof(kvm::uapi::PaddedCountHeader));
            for (uint32_t i = 0; i < count; ++i) written_msrs_.push_back(entries[i].index);
            return all(list);
        };
        calls_.answers[KVM_GET_TSC_KHZ] = [](void*) -> Result<int> { return 2'000'000; };
    }
    VcpuState read(const VcpuParts& parts) {
        auto state = kvm::read_vcpu_state(calls_, BorrowedFd(-1), parts);
        EXPECT_TRUE(state);
        return std::move(*state);
    }
    Result<> write(const VcpuParts& parts, const VcpuState& state) {
        calls_.asked.clear();
        return kvm::write_vcpu_state(calls_, BorrowedFd(-1), parts, state);
    }
    size_t place(unsigned long request) {
        const auto found = std::ranges::find(calls_.asked, request);
        EXPECT_NE(found, calls_.asked.end());
        return static_cast<size_t>(found - calls_.asked.begin());
    }
    void expect_refused(const VcpuParts& parts, const VcpuState& state, std::string_view what) {
        const auto written = write(parts, state);
        ASSERT_FALSE(written) << what;
        EXPECT_EQ(written.error().kind(), ErrorKind::Unsupported);
        EXPECT_NE(written.error().message().find(what), std::string::npos)
            << written.error().message();
        EXPECT_TRUE(calls_.asked.empty());  // nothing was changed
    }

    FakeCalls calls_;
    std::vector<uint32_t> written_msrs_;
};

TEST_F(KvmVcpuState, ReadingBeginsWithTheMultiprocessorStateAndEndsWithTheEvents) {
    (void)read(all_parts());
    EXPECT_EQ(calls_.asked.front(), KVM_GET_MP_STATE);
    EXPECT_EQ(calls_.asked.back(), KVM_GET_VCPU_EVENTS);
}

TEST_F(KvmVcpuState, WritingKeepsTheOrderThatTheKernelNeeds) {
    VcpuState state = read(all_parts());
    state.tsc_khz = 3'000'000;
    ASSERT_TRUE(write(all_parts(), state));
    EXPECT_LT(place(KVM_SET_TSC_KHZ), place(kvm::uapi::kSetMsrs));
    EXPECT_LT(place(KVM_SET_SREGS), place(KVM_SET_LAPIC));
    EXPECT_LT(place(KVM_SET_LAPIC), place(kvm::uapi::kSetMsrs));
    EXPECT_EQ(calls_.asked.back(), KVM_SET_VCPU_EVENTS);
    EXPECT_EQ(written_msrs_, (std::vector<uint32_t>{0x10, 0x174, 0x6e0}));  // the deadline last
}

TEST_F(KvmVcpuState, TheSameFrequencyIsNotSet) {
    const VcpuState state = read(all_parts());
    ASSERT_TRUE(write(all_parts(), state));
    EXPECT_EQ(std::ranges::count(calls_.asked, KVM_SET_TSC_KHZ), 0);
}

TEST_F(KvmVcpuState, AFrequencyTheHostCannotGiveIsNamed) {
    calls_.answers[KVM_SET_TSC_KHZ] = [](void*) -> Result<int> {
        return make_errno(EINVAL, "ioctl(KVM_SET_TSC_KHZ)");
    };
    VcpuState state = read(all_parts());
    state.tsc_khz = 1'000'000;
    const auto written = write(all_parts(), state);
    ASSERT_FALSE(written);
    EXPECT_NE(written.error().message().find("1000000 kHz"), std::string::npos);
}

TEST_F(KvmVcpuState, WhatTheHostLacksStaysOutAndIsNamedWhenItComes) {
    VcpuState rich = read(all_parts());
    rich.pdptrs.emplace();
    const VcpuState poor = read({});
    EXPECT_TRUE(poor.xsave.empty());
    EXPECT_TRUE(poor.fpu);
    EXPECT_FALSE(poor.lapic || poor.events || poor.mp_state || poor.xcrs || poor.debug_registers);
    EXPECT_TRUE(write({}, poor));

    const auto without = [](auto change) {
        VcpuParts parts = all_parts();
        change(parts);
        return parts;
    };
    expect_refused(without([](VcpuParts& p) { p.sregs2 = false; }), rich, "PAE pointers");
    expect_refused(without([](VcpuParts& p) { p.xsave = false; }), rich, "XSAVE");
    expect_refused(without([](VcpuParts& p) { p.xcrs = false; }), rich, "XCRs");
    expect_refused(without([](VcpuParts& p) { p.debug_registers = false; }), rich, "debug");
    expect_refused(without([](VcpuParts& p) { p.lapic = false; }), rich, "APIC");
    expect_refused(without([](VcpuParts& p) { p.events = false; }), rich, "events");
    expect_refused(without([](VcpuParts& p) { p.mp_state = false; }), rich, "multiprocessor");
    expect_refused(without([](VcpuParts& p) { p.msrs = {0x10, 0x6e0}; }), rich, "MSR 0x174");
    rich.xsave.resize(8192);
    expect_refused(all_parts(), rich, "8192 bytes");
}

TEST_F(KvmVcpuState, AnMsrThatIsNotAcceptedIsNamedWithItsValue) {
    VcpuState state = read(all_parts());
    state.msrs = {{0x10, 1}, {0x174, 0xdead}};
    calls_.answers[kvm::uapi::kSetMsrs] = [](void*) -> Result<int> { return 1; };
    const auto written = write(all_parts(), state);
    ASSERT_FALSE(written);
    EXPECT_NE(written.error().message().find("0xdead in MSR 0x174"), std::string::npos);
}

TEST_F(KvmVcpuState, EveryFailingRequestIsTold) {
    const VcpuState state = read(all_parts());
    const size_t reads = calls_.asked.size();
    for (size_t n = 1; n <= reads; ++n) {
        calls_.asked.clear();
        calls_.fail_at = n;
        const auto failed = kvm::read_vcpu_state(calls_, BorrowedFd(-1), all_parts());
        ASSERT_FALSE(failed) << n;
        EXPECT_NE(failed.error().message().find("ioctl(KVM_GET_"), std::string::npos);
    }
    calls_.fail_at = 0;
    ASSERT_TRUE(write(all_parts(), state));
    const size_t writes = calls_.asked.size();
    for (size_t n = 1; n <= writes; ++n) {
        calls_.fail_at = n;
        EXPECT_FALSE(write(all_parts(), state)) << n;
    }
}

}  // namespace
}  // namespace ferry::test
