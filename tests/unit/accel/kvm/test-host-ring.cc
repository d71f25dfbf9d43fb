// SPDX-License-Identifier: BSD-2-Clause
// Dirty rings of the host's KVM, where they work; and that those which do not are found out.
#include <array>

#include "tests/unit/accel/kvm/host-guest.h"
#include "util/try.h"

namespace ferry::test {
namespace {

constexpr uint32_t kRingEntries = 1024;

// The host's KVM, one of whose requests fails.
class OneFails final : public kvm::KernelCalls {
 public:
    Result<int> ioctl(BorrowedFd fd, unsigned long request, void* argument,
                      std::string_view call) override {
        if (request == failing) return make_errno(EIO, "{}", call);
        if (request == KVM_CHECK_EXTENSION && no_rings) {
            const auto capability = reinterpret_cast<uintptr_t>(argument);
            if (capability == KVM_CAP_DIRTY_LOG_RING ||
                capability == KVM_CAP_DIRTY_LOG_RING_ACQ_REL) {
                return 0;
            }
        }
        return kvm::system_calls().ioctl(fd, request, argument, call);
    }
    unsigned long failing = 0;
    bool no_rings = false;
};

class HostKvmRing : public HostKvm {
 protected:
    void SetUp() override {
        HostKvm::SetUp();
        if (IsSkipped()) return;
        auto opened = kvm::Kvm::open("/dev/kvm", calls_);
        ASSERT_TRUE(opened) << opened.error().message();
        own_ = std::move(*opened);
    }
    void need_rings() {
        auto used = own_->use_dirty_ring(kRingEntries);
        if (!used) GTEST_SKIP() << used.error().message();
    }
    OneFails calls_;
    std::unique_ptr<kvm::Kvm> own_;
};

TEST_F(HostKvmRing, OddSizesAreRefused) {
    for (const uint32_t entries : {0U, 3U, 1000U}) {
        const auto used = own_->use_dirty_ring(entries);
        ASSERT_FALSE(used);
        EXPECT_EQ(used.error().kind(), ErrorKind::InvalidArgument);
        EXPECT_NE(used.error().message().find("power of two"), std::string::npos);
    }
    EXPECT_FALSE(own_->use_dirty_ring(uint32_t{1} << 31));
    EXPECT_NE(own_->capabilities().dirty_log, kvm::DirtyLogMode::Ring);
}

TEST_F(HostKvmRing, AHostWithoutThemIsNamed) {
    calls_.no_rings = true;
    const auto used = own_->use_dirty_ring(kRingEntries);
    ASSERT_FALSE(used);
    EXPECT_EQ(used.error().kind(), ErrorKind::Unsupported);
    EXPECT_NE(used.error().message().find("has no dirty ring"), std::string::npos);
}

TEST_F(HostKvmRing, RingsThatDoNotWorkAreFoundOutAndTheLogStays) {
    const auto before = own_->capabilities().dirty_log;
    constexpr std::array<unsigned long, 2> kRequests{KVM_ENABLE_CAP, KVM_RESET_DIRTY_RINGS};
    for (const unsigned long request : kRequests) {
        calls_.failing = request;
        EXPECT_FALSE(own_->use_dirty_ring(kRingEntries));
        EXPECT_EQ(own_->capabilities().dirty_log, before);
    }
}

struct RingPages final : system::DirtySink {
    void mark_dirty(system::Gpa, uint64_t) override { FAIL(); }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& dirty) override {
        for (uint64_t bit = dirty.find_set(0); bit < dirty.size(); bit = dirty.find_set(bit + 1)) {
            pages.push_back((first + bit * page_size) / system::kPageSize);
        }
    }
    void mark_untracked(system::Gpa, uint64_t) override { FAIL(); }
    std::vector<uint64_t> pages;
};

// mov $0x2000,%ax; mov %ax,%ds; again: incb 0; out %al,$0x12; jmp again: page 0x20
constexpr std::array<uint8_t, 13> kWriteOne{0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xfe, 0x06,
                                            0x00, 0x00, 0xe6, 0x12, 0xeb, 0xf8};

TEST_F(HostKvmRing, AWrittenPageIsListedOnceAndAgainWhenItIsWrittenAgain) {
    need_rings();
    if (IsSkipped()) return;
    HostGuest guest(*own_, kWriteOne);
    kvm::DirtyRingLog log(guest.vm->calls(), guest.vm->fd(), guest.vm->ram_slots(),
                          *guest.vm->dirty_rings(), guest.env.log);
    ASSERT_TRUE(log.dirty_log_start());
    for (size_t round = 1; round < 4; ++round) {
        guest.resume();
        ASSERT_TRUE(guest.bus.wait_for(round));
        ASSERT_TRUE(guest.pause());
        RingPages written;
        log.dirty_log_sync(system::SyncPhase::Precopy, written);
        EXPECT_EQ(written.pages, std::vector<uint64_t>{0x20}) << round;
        RingPages again;
        log.dirty_log_sync(system::SyncPhase::Precopy, again);
        EXPECT_TRUE(again.pages.empty()) << round;
    }
    log.dirty_log_stop();
}

}  // namespace
}  // namespace ferry::test
