// SPDX-License-Identifier: BSD-2-Clause
// What devices wrote to guest memory, and what is done where nobody can tell.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "hw/vfio/dirty-tracking.h"
#include "hw/vfio/dma-log-ranges.h"
#include "tests/fakes/scripted-iommu-log.h"
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
        io.set_iommu_log(&iommu);
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
    test::ScriptedIommuLog iommu;
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

TEST_F(DirtyTest, NeighboursAreOneRangeAndHolesAreNone) {
    map(0, 16 * kPageSize);
    map(16 * kPageSize, 16 * kPageSize);
    for (uint64_t i = 1; i < 5; ++i) map(i * kGiB, 16 * kPageSize);
    const auto ranges = dma_log_ranges(memory);
    ASSERT_EQ(ranges.size(), 5u);
    EXPECT_EQ(ranges[0], (DmaLogRange{0, 32 * kPageSize}));
    EXPECT_EQ(ranges[4], (DmaLogRange{4 * kGiB, 16 * kPageSize}));
}

TEST(MergeRanges, SmallestGapsCloseFirst) {
    const std::vector<DmaLogRange> ranges = {{0, 10}, {100, 10}, {120, 10}, {1000, 10}};
    EXPECT_EQ(merge_ranges(ranges, 4), ranges);
    EXPECT_EQ(merge_ranges(ranges, 3), (std::vector<DmaLogRange>{{0, 10}, {100, 30}, {1000, 10}}));
    EXPECT_EQ(merge_ranges(ranges, 2), (std::vector<DmaLogRange>{{0, 130}, {1000, 10}}));
    EXPECT_EQ(merge_ranges(ranges, 0), (std::vector<DmaLogRange>{{0, 1010}}));
    EXPECT_TRUE(merge_ranges({}, 1).empty());
}

TEST_F(DirtyTest, DeviceThatTakesFewRangesGetsFewer) {
    for (uint64_t i = 0; i < 7; ++i) map(i * kGiB, 16 * kPageSize);
    a.set_max_log_ranges(2);
    add(a, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    EXPECT_EQ(a.logged_ranges(), (std::vector<DmaLogRange>{{0, 6 * kGiB + 16 * kPageSize}}));
    a.dma(3 * kGiB, 1);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{3 * kGiB / kPageSize}));
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, FailureThatFewerRangesDoNotMendIsNotTriedAgain) {
    for (uint64_t i = 0; i < 4; ++i) map(i * kGiB, 16 * kPageSize);
    add(a, DirtySource::DeviceLog);
    a.fail_call("log start", EINVAL);
    EXPECT_FALSE(tracker.dirty_log_start());
    EXPECT_EQ(calls("log start").size(), 1u);
}

TEST_F(DirtyTest, MemoryThatComesWhileLogsRunStartsThemAnewWithEverythingDirty) {
    map(0, 4 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::Iommu);
    ASSERT_TRUE(tracker.dirty_log_start());
    map(4 * kGiB, 4 * kPageSize);
    const KeepingSink sink = sync(SyncPhase::Precopy);
    EXPECT_EQ(sink.pages.size(), 8u);
    EXPECT_TRUE(sink.untracked.empty());
    EXPECT_EQ(a.logged_ranges(),
              (std::vector<DmaLogRange>{{0, 4 * kPageSize}, {4 * kGiB, 4 * kPageSize}}));
    EXPECT_EQ(iommu.starts, 1u);  // follows the mappings by itself
    a.dma(4 * kGiB, 1);
    EXPECT_EQ(sync(SyncPhase::Precopy).pages, (std::set<uint64_t>{4 * kGiB / kPageSize}));
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, LogThatDoesNotStartAnewLeavesItsDeviceUntracked) {
    map(0, 4 * kPageSize);
    add(a, DirtySource::DeviceLog);
    ASSERT_TRUE(tracker.dirty_log_start());
    map(4 * kGiB, 4 * kPageSize);
    a.fail_call("log start", EIO);
    const KeepingSink sink = sync(SyncPhase::Precopy);
    EXPECT_EQ(sink.pages.size(), 8u);
    EXPECT_EQ(sink.untracked.size(), 2u);
    EXPECT_EQ(env.log.lines().size(), 1u);
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, WhatADeviceCannotTheIommuDoes) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::DeviceLog);
    add(b, DirtySource::Iommu);
    ASSERT_TRUE(tracker.dirty_log_start());
    a.dma(0, 1);
    iommu.dma(5 * kPageSize);
    EXPECT_EQ(sync(SyncPhase::Precopy).pages, (std::set<uint64_t>{0, 5}));
    iommu.dma(6 * kPageSize);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{6}));
    tracker.dirty_log_stop();
    EXPECT_EQ(iommu.stops, 1u);
}

TEST_F(DirtyTest, DevicesBehindOneIommuShareItsLog) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::Iommu);
    add(b, DirtySource::Iommu);
    ASSERT_TRUE(tracker.dirty_log_start());
    iommu.dma(5 * kPageSize);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{5}));
    tracker.dirty_log_stop();
    EXPECT_EQ(iommu.starts, 1u);
    EXPECT_EQ(iommu.queries, 1u);
    EXPECT_EQ(iommu.stops, 1u);
    registrations.erase(registrations.begin());  // the one whose thread did the asking
    ASSERT_TRUE(tracker.dirty_log_start());
    iommu.dma(0);
    EXPECT_EQ(sync(SyncPhase::Final).pages, (std::set<uint64_t>{0}));
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, SharedIommuIsAskedWhileTheVmRunsIfOneOfItsDevicesAllowsIt) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::Iommu, PrecopyQueries::No);
    ASSERT_TRUE(tracker.dirty_log_start());
    iommu.dma(0);
    EXPECT_TRUE(sync(SyncPhase::Precopy).pages.empty());
    EXPECT_EQ(iommu.queries, 0u);
    tracker.dirty_log_stop();
    add(b, DirtySource::Iommu);
    ASSERT_TRUE(tracker.dirty_log_start());
    EXPECT_EQ(sync(SyncPhase::Precopy).pages, (std::set<uint64_t>{0}));
    tracker.dirty_log_stop();
}

TEST_F(DirtyTest, FailingIommuMakesEverythingUntrackedAndNeverNothing) {
    map(0, 64 * kPageSize);
    add(a, DirtySource::Iommu);
    ASSERT_TRUE(tracker.dirty_log_start());
    iommu.query_errnum = EIO;
    EXPECT_EQ(sync(SyncPhase::Precopy).untracked.size(), 1u);
    EXPECT_EQ(sync(SyncPhase::Final).untracked.size(), 1u);
    EXPECT_EQ(env.log.lines().size(), 1u);
    tracker.dirty_log_stop();
    iommu.start_errnum = ENOMEM;
    const auto started = tracker.dirty_log_start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().errnum(), ENOMEM);
    EXPECT_NE(started.error().message().find("of device dev"), std::string::npos);
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
