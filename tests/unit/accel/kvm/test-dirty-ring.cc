// SPDX-License-Identifier: BSD-2-Clause
// The rings as the kernel fills and empties them; the descriptor of a CPU is a file here.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>

#include "accel/kvm/dirty-ring.h"
#include "tests/support/test-env.h"
#include "tests/unit/accel/kvm/fake-calls.h"
#include "util/syscall.h"

namespace ferry::test {
namespace {

using system::kPageSize;
constexpr uint32_t kEntries = 256;
constexpr uint64_t kRingAt = KVM_DIRTY_LOG_PAGE_OFFSET * kPageSize;

// One CPU, from the kernel's side.
class KernelRing {
 public:
    KernelRing() : fd_(::memfd_create("vcpu", MFD_CLOEXEC)) {
        EXPECT_EQ(::ftruncate(fd_.raw(),
                              static_cast<off_t>(kRingAt + kvm::DirtyRings::bytes_of(kEntries))),
                  0);
        memory_ = util::MappedRegion::map(fd_.borrow(), kRingAt,
                                          kvm::DirtyRings::bytes_of(kEntries), "ring")
                      .value();
    }
    BorrowedFd fd() const { return fd_.borrow(); }
    // False: the ring is full, and the CPU has to leave the guest.
    bool write(uint32_t slot, uint64_t page) {
        if (used_ == kEntries) return false;
        kvm_dirty_gfn& entry = at(filled_++);
        entry.slot = slot;
        entry.offset = page;
        entry.flags = KVM_DIRTY_GFN_F_DIRTY;
        ++used_;
        return true;
    }
    uint32_t reset() {
        uint32_t count = 0;
        for (; used_ > 0 && (at(filled_ - used_).flags & KVM_DIRTY_GFN_F_RESET) != 0; --used_) {
            at(filled_ - used_).flags = 0;
            ++count;
        }
        return count;
    }

 private:
    kvm_dirty_gfn& at(uint64_t position) {
        return reinterpret_cast<kvm_dirty_gfn*>(memory_.bytes().data())[position % kEntries];
    }
    UniqueFd fd_;
    util::MappedRegion memory_;
    uint64_t filled_ = 0;
    uint32_t used_ = 0;
};

struct RingMarks final : system::DirtySink {
    void mark_dirty(system::Gpa first, uint64_t length) override {
        ranges.emplace_back(first, length);
    }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& dirty) override {
        for (uint64_t bit = dirty.find_set(0); bit < dirty.size(); bit = dirty.find_set(bit + 1)) {
            pages.push_back(first + bit * page_size);
        }
    }
    void mark_untracked(system::Gpa, uint64_t) override { FAIL(); }
    std::vector<system::Gpa> pages;
    std::vector<std::pair<system::Gpa, uint64_t>> ranges;
};

class KvmDirtyRing : public testing::Test {
 protected:
    KvmDirtyRing() {
        calls_.answers[KVM_RESET_DIRTY_RINGS] = [this](void*) -> Result<int> {
            if (fail_reset_) return make_errno(EIO, "ioctl(KVM_RESET_DIRTY_RINGS)");
            ++resets_;
            uint32_t count = 0;
            for (KernelRing& cpu : cpus_) count += cpu.reset();
            return static_cast<int>(count);
        };
        calls_.answers[KVM_SET_USER_MEMORY_REGION] = [this](void* argument) -> Result<int> {
            flags_.push_back(static_cast<const kvm_userspace_memory_region*>(argument)->flags);
            return 0;
        };
        for (KernelRing& cpu : cpus_) EXPECT_TRUE(rings_.add(cpu.fd()));
        rings_.watch(slots_);
    }
    std::vector<system::Gpa> sync() {
        RingMarks marks;
        log_.dirty_log_sync(system::SyncPhase::Precopy, marks);
        EXPECT_TRUE(marks.ranges.empty());
        return marks.pages;
    }
    // Never touched: only size and address matter.
    static MutBytes some_pages(uint64_t pages) {
        return {reinterpret_cast<std::byte*>(uintptr_t{1} << 40), pages * kPageSize};
    }

    using Pages = std::vector<system::Gpa>;
    static constexpr uint64_t kHigh = uint64_t{4} << 30;
    TestEnv env_;
    FakeCalls calls_;
    std::vector<kvm::MemorySlot> slots_{{.id = 0, .gpa = 0, .host = some_pages(1024)},
                                        {.id = 1, .gpa = kHigh, .host = some_pages(100)}};
    std::deque<KernelRing> cpus_{2};
    kvm::DirtyRings rings_{calls_, BorrowedFd(-1), kEntries};
    kvm::DirtyRingLog log_{calls_, BorrowedFd(-1), slots_, rings_, env_.log};
    std::vector<uint32_t> flags_;
    unsigned resets_ = 0;
    bool fail_reset_ = false;
};

TEST_F(KvmDirtyRing, ARingThatCannotBeMappedIsAnError) {
    const UniqueFd nothing(::memfd_create("short", MFD_CLOEXEC));
    EXPECT_FALSE(rings_.add(BorrowedFd(-1)));
}

TEST_F(KvmDirtyRing, AFailingStartStopsWhatItStarted) {
    calls_.fail_at = 2;
    const auto started = log_.dirty_log_start();
    ASSERT_FALSE(started);
    EXPECT_NE(started.error().message().find("memory slot 1"), std::string::npos);
    EXPECT_EQ(flags_, (std::vector<uint32_t>{KVM_MEM_LOG_DIRTY_PAGES, 0, 0}));
}

TEST_F(KvmDirtyRing, ARingThatCannotBeGivenBackMarksAllAndLosesNothing) {
    cpus_[0].write(0, 7);
    fail_reset_ = true;
    for (int i = 0; i < 2; ++i) {  // the second time there is nothing new, but still a debt
        RingMarks marks;
        log_.dirty_log_sync(system::SyncPhase::Precopy, marks);
        EXPECT_EQ(marks.ranges.size(), 2u);
    }
    EXPECT_EQ(env_.log.lines().size(), 1u);
    fail_reset_ = false;
    EXPECT_EQ(sync(), Pages{7 * kPageSize});
}

TEST_F(KvmDirtyRing, AnUnmovedRingCostsNoRequest) {
    EXPECT_EQ(sync(), Pages{});
    EXPECT_EQ(resets_, 0u);
}

TEST_F(KvmDirtyRing, PagesOfAllCpusAndSlotsAreReportedOnce) {
    cpus_[0].write(0, 1);
    cpus_[0].write(0, 3);
    cpus_[1].write(0, 3);
    cpus_[1].write(1, 99);
    EXPECT_EQ(sync(), (Pages{kPageSize, 3 * kPageSize, kHigh + 99 * kPageSize}));
    EXPECT_EQ(resets_, 1u);
    EXPECT_EQ(sync(), Pages{});
    cpus_[0].write(0, 1);
    EXPECT_EQ(sync(), Pages{kPageSize});
}

TEST_F(KvmDirtyRing, WhatIsNotRamIsIgnored) {
    cpus_[0].write(0, 1024);
    cpus_[0].write(1, UINT64_MAX);
    cpus_[0].write(2, 0);
    cpus_[0].write(0, 5);
    EXPECT_EQ(sync(), Pages{5 * kPageSize});
}

TEST_F(KvmDirtyRing, AFullRingIsEmptiedAndItsPagesWaitForTheNextSync) {
    uint64_t page = 0;
    for (int round = 0; round < 3; ++round) {
        while (cpus_[0].write(0, page)) ++page;
        EXPECT_TRUE(rings_.harvest(0));
        EXPECT_TRUE(cpus_[0].write(0, page++));
    }
    const auto pages = sync();
    ASSERT_EQ(pages.size(), page);
    for (uint64_t i = 0; i < page; ++i) EXPECT_EQ(pages[i], i * kPageSize);
}

TEST_F(KvmDirtyRing, OneCpusFullRingLeavesTheOthersAlone) {
    cpus_[0].write(0, 1);
    cpus_[1].write(0, 2);
    EXPECT_TRUE(rings_.harvest(1));
    EXPECT_EQ(cpus_[1].reset() + cpus_[0].reset(), 0u);
    EXPECT_EQ(sync(), (Pages{kPageSize, 2 * kPageSize}));
}

TEST_F(KvmDirtyRing, AStartForgetsWhatAnEarlierLogLeft) {
    cpus_[0].write(0, 1);
    EXPECT_TRUE(log_.dirty_log_start());
    EXPECT_EQ(flags_, (std::vector<uint32_t>(2, KVM_MEM_LOG_DIRTY_PAGES)));
    cpus_[0].write(0, 2);
    EXPECT_EQ(sync(), Pages{2 * kPageSize});
    log_.dirty_log_stop();
    EXPECT_EQ(flags_.back(), 0u);
}

}  // namespace
}  // namespace ferry::test
