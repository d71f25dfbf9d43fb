// SPDX-License-Identifier: BSD-2-Clause
// State taken out of one VM of the host's KVM and put into another one; and the dirty log.
#include <algorithm>
#include <array>
#include <set>

#include "accel/kvm/dirty-log.h"
#include "tests/unit/accel/kvm/host-guest.h"

namespace ferry::test {
namespace {

constexpr uint64_t kFirstPage = 0x10;  // of what the guest writes
constexpr uint64_t kPages = 16;

// mov $0x1000,%ax; mov %ax,%ds; xor %esi,%esi
// again: xor %bx,%bx; mov $16,%cx
// next: incb (%bx); add $0x1000,%bx; loop next
// inc %esi; mov %esi,%eax; mov $0x10,%dx; out %eax,%dx; in $0xe0,%al; jmp again
constexpr std::array<uint8_t, 35> kSweep{0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x66, 0x31, 0xf6, 0x31,
                                         0xdb, 0xb9, 0x10, 0x00, 0xfe, 0x07, 0x81, 0xc3, 0x00,
                                         0x10, 0xe2, 0xf8, 0x66, 0x46, 0x66, 0x89, 0xf0, 0xba,
                                         0x10, 0x00, 0x66, 0xef, 0xe4, 0xe0, 0xeb, 0xe5};

std::vector<uint8_t> first_bytes(HostGuest& guest) {
    std::vector<uint8_t> bytes;
    for (uint64_t page = 0; page < kPages; ++page) {
        bytes.push_back(static_cast<uint8_t>(guest.ram((kFirstPage + page) * system::kPageSize)));
    }
    return bytes;
}

// One ordered edge at most: the pages before it are one sweep ahead.
bool has_one_edge(const std::vector<uint8_t>& bytes) {
    const auto edge = std::ranges::adjacent_find(bytes, std::not_equal_to<>());
    if (edge == bytes.end()) return true;
    const auto after = std::next(edge);
    const bool step = *edge == static_cast<uint8_t>(*after + 1);
    return step && std::all_of(after, bytes.end(), [&](uint8_t byte) { return byte == *after; });
}

class Sink final : public system::DirtySink {
 public:
    void mark_dirty(system::Gpa first, uint64_t length) override {
        for (uint64_t at = 0; at < length; at += system::kPageSize) {
            pages.insert((first + at) / system::kPageSize);
        }
    }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& dirty) override {
        for (uint64_t bit = dirty.find_set(0); bit < dirty.size(); bit = dirty.find_set(bit + 1)) {
            pages.insert((first + bit * page_size) / system::kPageSize);
        }
    }
    void mark_untracked(system::Gpa first, uint64_t length) override { mark_dirty(first, length); }
    std::set<uint64_t> pages;
};

// The second guest gets RAM and state of the first one.
void move(HostGuest& from, HostGuest& to) {
    auto states = from.vcpus->read_states();
    ASSERT_TRUE(states) << states.error().message();
    const auto vm_state = from.vm->state();
    ASSERT_TRUE(vm_state) << vm_state.error().message();
    std::ranges::copy(from.block->host(), to.block->host().begin());
    const auto loaded = to.load(std::move(*states), *vm_state);
    ASSERT_TRUE(loaded) << loaded.error().message();
}

TEST_F(HostKvm, TheStateGoesOnInASecondVmAtTheExactInstruction) {
    auto guest = std::make_unique<HostGuest>(*kvm_, kSweep);
    uint32_t last = 0;
    for (int hop = 0; hop < 8; ++hop) {
        guest->resume();
        ASSERT_TRUE(guest->bus.wait_for(300));
        ASSERT_TRUE(guest->pause());
        EXPECT_TRUE(has_one_edge(first_bytes(*guest)));
        // No step lost or doubled.
        for (const uint32_t value : guest->bus.said()) ASSERT_EQ(value, ++last);
        auto next = std::make_unique<HostGuest>(*kvm_, kSweep);
        move(*guest, *next);
        if (HasFatalFailure()) return;
        guest = std::move(next);
    }
}

TEST_F(HostKvm, TheStateReadBackIsTheStateWritten) {
    HostGuest first(*kvm_, kSweep), second(*kvm_, kSweep);
    first.resume();
    ASSERT_TRUE(first.bus.wait_for(5));
    ASSERT_TRUE(first.pause());
    const auto before = first.vcpus->read_states();
    ASSERT_TRUE(before);
    move(first, second);
    const auto after = second.vcpus->read_states();
    ASSERT_TRUE(after);
    const auto same_bytes = [](const auto& a, const auto& b) {
        return std::ranges::equal(std::as_bytes(std::span(&a, 1)), std::as_bytes(std::span(&b, 1)));
    };
    const kvm::VcpuState &a = before->front(), &b = after->front();
    EXPECT_TRUE(same_bytes(a.regs, b.regs));
    EXPECT_TRUE(same_bytes(a.sregs, b.sregs));
    EXPECT_EQ(a.xsave, b.xsave);
    EXPECT_EQ(a.mp_state, b.mp_state);
    EXPECT_EQ(a.tsc_khz, b.tsc_khz);
    ASSERT_EQ(a.msrs.size(), b.msrs.size());
    constexpr uint32_t kTsc = 0x10;
    for (size_t i = 0; i < a.msrs.size(); ++i) {
        EXPECT_EQ(a.msrs[i].index, b.msrs[i].index);
        if (a.msrs[i].index == kTsc) {
            EXPECT_LE(a.msrs[i].value, b.msrs[i].value);
        } else {
            EXPECT_EQ(a.msrs[i].value, b.msrs[i].value) << fmt::format("{:#x}", a.msrs[i].index);
        }
    }
}

TEST_F(HostKvm, APendingInterruptMoves) {
    // xor %ax,%ax; mov %ax,%ds; movw $0x1100,0x100; movw $0,0x102; out %al,$0x12; sti; hlt
    constexpr std::array<uint8_t, 22> kHalt{0x31, 0xc0, 0x8e, 0xd8, 0xc7, 0x06, 0x00, 0x01,
                                            0x00, 0x11, 0xc7, 0x06, 0x02, 0x01, 0x00, 0x00,
                                            0xe6, 0x12, 0xfb, 0xf4, 0xeb, 0xfd};
    constexpr std::array<uint8_t, 3> kHandler{0xe6, 0x10, 0xcf};  // out %al,$0x10; iret
    HostGuest first(*kvm_, kHalt), second(*kvm_, kHalt);
    std::ranges::copy(std::as_bytes(std::span(kHandler)), &first.ram(0x1100));
    ASSERT_TRUE(first.reset([](kvm::VcpuState& boot) {
        boot.regs.rsp = 0x800;
        boot.lapic->regs[0xf0] = static_cast<char>(0xff);  // spurious vector,
        boot.lapic->regs[0xf1] = 1;                        // and the APIC is enabled
    }));
    first.resume();
    ASSERT_TRUE(first.bus.wait_for(1));
    ASSERT_TRUE(first.pause());
    ASSERT_TRUE(first.vm->interrupts().signal_msi({0xfee00000, 0x40}));
    move(first, second);
    second.resume();
    EXPECT_TRUE(second.bus.wait_for(1));
    ASSERT_TRUE(second.pause());
    EXPECT_EQ(first.bus.said().size(), 1U);
}

TEST_F(HostKvm, TheClockOfAStoppedGuestMovesWithIt) {
    HostGuest first(*kvm_, kSweep), second(*kvm_, kSweep);
    first.resume();
    ASSERT_TRUE(first.bus.wait_for(5));
    ASSERT_TRUE(first.pause());
    const auto at_pause = first.vm->state();
    ASSERT_TRUE(at_pause);
    if (!at_pause->clock_ns) GTEST_SKIP() << "the host's KVM has no clock that can be set";
    move(first, second);
    const auto arrived = second.vm->state();
    ASSERT_TRUE(arrived);
    EXPECT_EQ(at_pause->clock_ns, arrived->clock_ns);
    EXPECT_EQ(first.vm->state()->clock_ns, at_pause->clock_ns);  // stands still
}

TEST_F(HostKvm, AStateWithAForeignMsrIsRefusedByName) {
    HostGuest guest(*kvm_, kSweep);
    auto states = guest.vcpus->read_states();
    ASSERT_TRUE(states);
    states->front().msrs.push_back({.index = 0x1234567, .value = 1});
    const auto loaded = guest.load(std::move(*states), *guest.vm->state());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("MSR 0x1234567"), std::string::npos)
        << loaded.error().message();
}

TEST_F(HostKvm, ANamedModelRuns) {
    HostGuest guest(*kvm_, kSweep, 1, "qemu64");
    guest.resume();
    EXPECT_TRUE(guest.bus.wait_for(10));
    EXPECT_TRUE(guest.pause());
}

class HostDirtyLog : public HostKvm {
 protected:
    void check(kvm::DirtyLogMode mode) {
        HostGuest guest(*kvm_, kSweep);
        kvm::DirtyLog log(kvm_->calls(), guest.vm->fd(), guest.vm->ram_slots(), mode,
                          guest.env.log);
        ASSERT_TRUE(log.dirty_log_start());
        std::set<uint64_t> expected;
        for (uint64_t page = 0; page < kPages; ++page) expected.insert(kFirstPage + page);
        for (int round = 0; round < 3; ++round) {
            guest.resume();
            ASSERT_TRUE(guest.bus.wait_for(guest.bus.said().size() + 2));
            ASSERT_TRUE(guest.pause());
            Sink dirty, again;
            log.dirty_log_sync(system::SyncPhase::Precopy, dirty);
            log.dirty_log_sync(system::SyncPhase::Final, again);
            EXPECT_TRUE(std::ranges::includes(dirty.pages, expected));
            EXPECT_LT(dirty.pages.size(), expected.size() + 4);  // the code, the vectors
            EXPECT_TRUE(again.pages.empty());
        }
        log.dirty_log_stop();
        EXPECT_TRUE(guest.env.log.lines().empty());
    }
};

TEST_F(HostDirtyLog, ShowsExactlyWhatWasWrittenSinceTheLastTime) {
    if (kvm_->capabilities().dirty_log == kvm::DirtyLogMode::None) {
        GTEST_SKIP() << "the dirty log of the host's KVM does not work";
    }
    check(kvm_->capabilities().dirty_log);
}

// A page that is written while the log is read is in this log or in the next one.
TEST_F(HostDirtyLog, NoWriteIsLostWhileTheGuestRuns) {
    if (kvm_->capabilities().dirty_log == kvm::DirtyLogMode::None) {
        GTEST_SKIP() << "the dirty log of the host's KVM does not work";
    }
    HostGuest guest(*kvm_, kSweep);
    kvm::DirtyLog log(kvm_->calls(), guest.vm->fd(), guest.vm->ram_slots(),
                      guest.vm->dirty_log_mode(), guest.env.log);
    ASSERT_TRUE(log.dirty_log_start());
    std::vector<std::byte> copy(guest.block->host().begin(), guest.block->host().end());
    const auto take = [&](system::SyncPhase phase) {
        Sink dirty;
        log.dirty_log_sync(phase, dirty);
        for (const uint64_t page : dirty.pages) {
            const auto bytes =
                guest.block->host().subspan(page * system::kPageSize, system::kPageSize);
            std::ranges::copy(bytes,
                              copy.begin() + static_cast<ptrdiff_t>(page * system::kPageSize));
        }
    };
    guest.resume();
    for (int round = 0; round < 50; ++round) {
        ASSERT_TRUE(guest.bus.wait_for(guest.bus.said().size() + 1));
        take(system::SyncPhase::Precopy);
    }
    ASSERT_TRUE(guest.pause());
    take(system::SyncPhase::Final);
    EXPECT_TRUE(std::ranges::equal(copy, guest.block->host()));
    log.dirty_log_stop();
}

}  // namespace
}  // namespace ferry::test
