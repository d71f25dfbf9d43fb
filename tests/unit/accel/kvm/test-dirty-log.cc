// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>

#include "accel/kvm/dirty-log.h"
#include "tests/support/test-env.h"
#include "tests/unit/accel/kvm/fake-calls.h"

namespace ferry::test {
namespace {

using kvm::DirtyLog;
using kvm::DirtyLogMode;
using kvm::MemorySlot;
using system::kPageSize;

constexpr uint64_t kPages = DirtyLog::kClearChunkPages * 3 + 100;

// Never touched: only its size and address matter.
MutBytes some_memory(uint64_t pages) {
    return {reinterpret_cast<std::byte*>(uintptr_t{1} << 40), pages * kPageSize};
}

struct Marks final : system::DirtySink {
    void mark_dirty(system::Gpa first, uint64_t length) override {
        ranges.emplace_back(first, length);
    }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& dirty) override {
        for (uint64_t bit = dirty.find_set(0); bit < dirty.size(); bit = dirty.find_set(bit + 1)) {
            pages.push_back(first + bit * page_size);
        }
    }
    void mark_untracked(system::Gpa first, uint64_t length) override {
        untracked.emplace_back(first, length);
    }
    std::vector<system::Gpa> pages;
    std::vector<std::pair<system::Gpa, uint64_t>> ranges, untracked;
};

struct Clear {
    uint64_t first, count, first_word;
};

class KvmDirtyLog : public testing::Test {
 protected:
    KvmDirtyLog() {
        calls_.answers[KVM_GET_DIRTY_LOG] = [this](void* argument) -> Result<int> {
            const auto* log = static_cast<const kvm_dirty_log*>(argument);
            auto* words = static_cast<uint64_t*>(log->dirty_bitmap);
            for (const uint64_t bit : dirty_) words[bit / 64] |= uint64_t{1} << bit % 64;
            return 0;
        };
        calls_.answers[KVM_CLEAR_DIRTY_LOG] = [this](void* argument) -> Result<int> {
            const auto* clear = static_cast<const kvm_clear_dirty_log*>(argument);
            clears_.push_back({clear->first_page, clear->num_pages,
                               *static_cast<const uint64_t*>(clear->dirty_bitmap)});
            return 0;
        };
        calls_.answers[KVM_SET_USER_MEMORY_REGION] = [this](void* argument) -> Result<int> {
            flags_.push_back(static_cast<const kvm_userspace_memory_region*>(argument)->flags);
            return 0;
        };
    }
    DirtyLog log(DirtyLogMode mode) { return {calls_, BorrowedFd(-1), slots_, mode, env_.log}; }

    TestEnv env_;
    FakeCalls calls_;
    std::vector<MemorySlot> slots_{
        {.id = 0, .gpa = uint64_t{4} << 30, .host = some_memory(kPages)}};
    std::vector<uint64_t> dirty_;  // pages of each slot, as the kernel answers
    std::vector<Clear> clears_;
    std::vector<uint32_t> flags_;
};

TEST_F(KvmDirtyLog, ReportsPagesByTheirGuestAddress) {
    dirty_ = {0, 63, 64, kPages - 1};
    Marks marks;
    log(DirtyLogMode::Plain).dirty_log_sync(system::SyncPhase::Final, marks);
    const uint64_t base = slots_[0].gpa;
    EXPECT_EQ(marks.pages, (std::vector{base, base + 63 * kPageSize, base + 64 * kPageSize,
                                        base + (kPages - 1) * kPageSize}));
    EXPECT_TRUE(clears_.empty());
}

TEST_F(KvmDirtyLog, ManualModeClearsOnlyWhereSomethingIsDirtyInAlignedChunks) {
    dirty_ = {70, DirtyLog::kClearChunkPages * 2 + 65, DirtyLog::kClearChunkPages * 3 + 60};
    Marks marks;
    log(DirtyLogMode::Manual).dirty_log_sync(system::SyncPhase::Precopy, marks);
    EXPECT_EQ(marks.pages.size(), 3U);
    ASSERT_EQ(clears_.size(), 2U);
    for (const Clear& clear : clears_) {
        EXPECT_EQ(clear.first % kvm::kClearAlignmentPages, 0U);
        const bool to_the_end = clear.first + clear.count == kPages;
        EXPECT_TRUE(clear.count % kvm::kClearAlignmentPages == 0 || to_the_end);
        EXPECT_LE(clear.count, DirtyLog::kClearChunkPages);
    }
    EXPECT_EQ(clears_[0].first, 64U);
    EXPECT_EQ(clears_[0].first_word, uint64_t{1} << 6);
    EXPECT_EQ(clears_[1].first, DirtyLog::kClearChunkPages * 2 + 64);
    EXPECT_EQ(clears_[1].first_word, uint64_t{1} << 1);
}

TEST_F(KvmDirtyLog, ACleanLogMarksAndClearsNothing) {
    Marks marks;
    log(DirtyLogMode::Manual).dirty_log_sync(system::SyncPhase::Precopy, marks);
    EXPECT_TRUE(marks.pages.empty());
    EXPECT_TRUE(clears_.empty());
}

TEST_F(KvmDirtyLog, AFailingReadMarksTheWholeSlotAndWarnsOnce) {
    calls_.answers[KVM_GET_DIRTY_LOG] = [](void*) -> Result<int> {
        return make_errno(EIO, "ioctl(KVM_GET_DIRTY_LOG)");
    };
    DirtyLog dirty = log(DirtyLogMode::Plain);
    Marks marks;
    dirty.dirty_log_sync(system::SyncPhase::Precopy, marks);
    dirty.dirty_log_sync(system::SyncPhase::Precopy, marks);
    EXPECT_EQ(marks.ranges, (std::vector<std::pair<system::Gpa, uint64_t>>(
                                2, {slots_[0].gpa, kPages * kPageSize})));
    EXPECT_EQ(env_.log.lines().size(), 1U);
}

TEST_F(KvmDirtyLog, AFailingClearMarksTheWholeSlot) {
    dirty_ = {1};
    calls_.answers[KVM_CLEAR_DIRTY_LOG] = [](void*) -> Result<int> {
        return make_errno(EINVAL, "ioctl(KVM_CLEAR_DIRTY_LOG)");
    };
    Marks marks;
    log(DirtyLogMode::Manual).dirty_log_sync(system::SyncPhase::Precopy, marks);
    EXPECT_EQ(marks.ranges.size(), 1U);
}

TEST_F(KvmDirtyLog, WithoutAWorkingLogMemoryIsUntrackedAndTheKernelIsLeftAlone) {
    DirtyLog dirty = log(DirtyLogMode::None);
    EXPECT_TRUE(dirty.dirty_log_start());
    Marks marks;
    dirty.dirty_log_sync(system::SyncPhase::Precopy, marks);
    dirty.dirty_log_stop();
    EXPECT_EQ(marks.untracked.size(), 1U);
    EXPECT_TRUE(calls_.asked.empty());
}

TEST_F(KvmDirtyLog, AFailedStartStopsWhatItStarted) {
    slots_.push_back({.id = 1, .gpa = uint64_t{1} << 40, .host = some_memory(64)});
    calls_.fail_at = 2;
    DirtyLog dirty = log(DirtyLogMode::Plain);
    const auto started = dirty.dirty_log_start();
    ASSERT_FALSE(started);
    EXPECT_NE(started.error().message().find("memory slot 1"), std::string::npos);
    EXPECT_EQ(flags_, (std::vector<uint32_t>{KVM_MEM_LOG_DIRTY_PAGES, 0, 0}));
}

}  // namespace
}  // namespace ferry::test
