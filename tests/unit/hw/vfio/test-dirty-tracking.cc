// SPDX-License-Identifier: BSD-2-Clause
// What devices wrote to guest memory, and what is done where nobody can tell.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "hw/vfio/dirty-tracking.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using system::kPageSize;
using system::SyncPhase;
using test::CallLog;
using test::kAll;
using test::ScriptedDeviceIo;

constexpr uint64_t kGiB = uint64_t{1} << 30;

class KeepingSink final : public system::DirtySink {
 public:
    void mark_dirty(system::Gpa first, uint64_t length) override {
        for (uint64_t at = 0; at < length; at += kPageSize) pages.insert((first + at) / kPageSize);
    }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& bits) override {
        for (uint64_t bit = bits.find_set(0); bit < bits.size(); bit = bits.find_set(bit + 1)) {
            pages.insert((first + bit * page_size) / kPageSize);
        }
    }
    void mark_untracked(system::Gpa first, uint64_t length) override {
        untracked.emplace_back(first, length);
    }
    std::set<uint64_t> pages;
    std::vector<std::pair<uint64_t, uint64_t>> untracked;
};

struct DirtyTest : ::testing::Test {
    void map(uint64_t gpa, uint64_t length) {
        auto block = system::RamBlock::create_memfd("ram" + std::to_string(gpa), length);
        ASSERT_TRUE(block) << block.error().message();
        auto added = memory.add_block(std::move(*block));
        ASSERT_TRUE(added);
        ASSERT_TRUE(memory.map(**added, gpa, 0, length));
    }
    void add(ScriptedDeviceIo& io, DirtySource source,
             PrecopyQueries precopy = PrecopyQueries::Yes) {
        registrations.push_back(tracker.add(
            {.label = "dev", .io = io, .worker = **worker, .source = source, .precopy = precopy}));
    }
    std::vector<std::string> calls(std::string_view which) const {
        std::vector<std::string> lines = log.lines();
        std::erase_if(lines, [&](const std::string& line) { return !line.ends_with(which); });
        return lines;
    }
    KeepingSink sync(SyncPhase phase) {
        KeepingSink sink;
        tracker.dirty_log_sync(phase, sink);
        return sink;
    }

    test::TestEnv env;
    CallLog log;
    system::GuestMemory memory;
    VfioDirtyTracker tracker{memory, env.env};
    Result<std::unique_ptr<util::Worker>> worker = util::Worker::create("vfio/dev");
    ScriptedDeviceIo a{"a", kAll, log};
    ScriptedDeviceIo b{"b", kAll, log};
    std::vector<util::Registration> registrations;
};

TEST_F(DirtyTest, RangesCoverAllMemoryBelowAndAboveTheHole) {
    map(0, 3 * kGiB);
    map(4 * kGiB, 8 * kGiB);
    const auto ranges = dma_log_ranges(memory);
    ASSERT_EQ(ranges.size(), 2u);
    EXPECT_EQ(ranges[0].iova, 0u);
    EXPECT_EQ(ranges[0].length, 3 * kGiB);
    EXPECT_EQ(ranges[1].iova, 4 * kGiB);
    EXPECT_EQ(ranges[1].length, 8 * kGiB);
}

TEST_F(DirtyTest, MemoryThatCrosses4GiBBelongsToTheUpperRange) {
    map(0, 16 * kPageSize);
    map(4 * kGiB - 16 * kPageSize, 32 * kPageSize);
    const auto ranges = dma_log_ranges(memory);
    ASSERT_EQ(ranges.size(), 2u);
    EXPECT_EQ(ranges[0].length, 16 * kPageSize);
    EXPECT_EQ(ranges[1].iova, 4 * kGiB - 16 * kPageSize);
    EXPECT_EQ(ranges[1].length, 32 * kPageSize);
}

TEST_F(DirtyTest, WithoutMemoryThereIsNoRange) {
    EXPECT_TRUE(dma_log_ranges(memory).empty());
    add(a, DirtySource::DeviceLog);
    EXPECT_TRUE(tracker.dirty_log_start());
    EXPECT_TRUE(log.lines().empty());
}

TEST_F(DirtyTest, PagesWrittenByAnyDeviceAreReportedOnce) {
    map(0, 64 * kPageSize);
    map(4 * kGiB, 64 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    a.dma(3 * kPageSize + 100, 2 * kPageSize);
    b.dma(4 * kGiB + 63 * kPageSize, 1);
    const KeepingSink first = sync(SyncPhase::Precopy);
    EXPECT_EQ(first.pages, (std::set<uint64_t>{3, 4, 5, 4 * kGiB / kPageSize + 63}));
    EXPECT_TRUE(first.untracked.empty());
    EXPECT_TRUE(sync(SyncPhase::Precopy).pages.empty());
    b.dma(0, 1);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{0}));
    tracker.dirty_log_stop();
    EXPECT_TRUE(a.logged_ranges().empty());
    EXPECT_TRUE(b.logged_ranges().empty());
}

TEST_F(DirtyTest, UntrackedDeviceMakesAllMemoryUntrackedAtEverySync) {
    map(0, 64 * kPageSize);
    map(4 * kGiB, 32 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::Nobody);
    ASSERT_TRUE(tracker.dirty_log_start());
    EXPECT_EQ(calls("log start"), (std::vector<std::string>{"a: log start"}));
    const std::vector<std::pair<uint64_t, uint64_t>> all = {{0, 64 * kPageSize},
                                                            {4 * kGiB, 32 * kPageSize}};
    EXPECT_EQ(sync(SyncPhase::Precopy).untracked, all);
    EXPECT_EQ(sync(SyncPhase::Precopy).untracked, all);
    EXPECT_EQ(sync(SyncPhase::Final).untracked, all);
    tracker.dirty_log_stop();
    EXPECT_EQ(calls("log stop"), (std::vector<std::string>{"a: log stop"}));
}

TEST_F(DirtyTest, OptedOutDeviceIsAskedOnlyAfterTheStop) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::DeviceLog, PrecopyQueries::No);
    ASSERT_TRUE(tracker.dirty_log_start());
    a.dma(0, 3 * kPageSize);
    EXPECT_TRUE(sync(SyncPhase::Precopy).pages.empty());
    EXPECT_TRUE(calls("log report").empty());
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{0, 1, 2}));
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, OptedOutUntrackedDeviceCountsOnlyAfterTheStop) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::Nobody, PrecopyQueries::No);
    ASSERT_TRUE(tracker.dirty_log_start());
    EXPECT_TRUE(sync(SyncPhase::Precopy).untracked.empty());
    EXPECT_EQ(sync(SyncPhase::Final).untracked.size(), 1u);
}

TEST_F(DirtyTest, FailingStartStopsTheOthersAndNamesTheDevice) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::DeviceLog);
    b.fail_call("log start", ENOMEM);
    const auto started = tracker.dirty_log_start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().errnum(), ENOMEM);
    EXPECT_NE(started.error().message().find("device dev"), std::string::npos);
    EXPECT_TRUE(a.logged_ranges().empty());
    tracker.dirty_log_stop();  // as the core does after a failed start
    EXPECT_EQ(calls("log stop"), (std::vector<std::string>{"a: log stop"}));
    EXPECT_TRUE(tracker.dirty_log_start());  // a second attempt
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, FailingReportMakesItsRangeUntrackedWarnsOnceAndGoesOn) {
    map(0, 64 * kPageSize);
    map(4 * kGiB, 64 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    b.dma(kPageSize, 1);
    a.fail_calls("log report", EOPNOTSUPP);
    const KeepingSink sink = sync(SyncPhase::Precopy);
    EXPECT_EQ(sink.untracked.size(), 2u);
    EXPECT_EQ(sink.pages, (std::set<uint64_t>{1}));
    EXPECT_EQ(sync(SyncPhase::Final).untracked.size(), 2u);
    ASSERT_EQ(env.log.lines().size(), 1u);
    EXPECT_EQ(env.log.lines()[0].first, util::LogLevel::Warning);
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, FailingStopIsAWarning) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    a.fail_call("log stop", EIO);
    tracker.dirty_log_stop();
    EXPECT_EQ(env.log.lines().size(), 1u);
}

TEST_F(DirtyTest, LargeMappingIsAskedInPieces) {
    map(4 * kGiB, 80 * kGiB);
    add(a, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    a.dma(4 * kGiB + 70 * kGiB, 1);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{74 * kGiB / kPageSize}));
    EXPECT_EQ(calls("log report").size(), 2u);
    tracker.dirty_log_stop();
}

TEST(VfioDirty, DevicesOfOneVmShareATrackerThatTheLastOneTakesAway) {
    test::VfioVmFixture vm;
    vm.add_ram(0, 64 * kPageSize);
    auto& a = vm.plugged({.name = "a"});
    auto& b = vm.plugged({.name = "b"});
    ASSERT_EQ(vm.memory.trackers().size(), 1u);
    system::DirtyTracker& tracker = *vm.memory.trackers()[0];
    ASSERT_TRUE(tracker.dirty_log_start());
    a.io->dma(0, 1);
    b.io->dma(kPageSize, 1);
    KeepingSink sink;
    tracker.dirty_log_sync(SyncPhase::Final, sink);
    EXPECT_EQ(sink.pages, (std::set<uint64_t>{0, 1}));
    tracker.dirty_log_stop();
    vm.unplug(a);
    EXPECT_EQ(vm.memory.trackers().size(), 1u);
    vm.unplug(b);
    EXPECT_TRUE(vm.memory.trackers().empty());
}

}  // namespace
}  // namespace ferry::vfio
