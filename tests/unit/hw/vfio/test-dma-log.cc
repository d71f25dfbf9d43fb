// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "hw/dma-log.h"
#include "tests/support/errno-of.h"

namespace ferry::hw {
namespace {

using system::kPageSize;
using test::errno_of;
using vfio::DmaLogRange;

std::vector<uint64_t> bits(const util::Bitmap& bitmap) {
    std::vector<uint64_t> set;
    for (uint64_t bit = bitmap.find_set(0); bit < bitmap.size(); bit = bitmap.find_set(bit + 1)) {
        set.push_back(bit);
    }
    return set;
}

TEST(DmaLogRules, PageSizeThatIsNoPowerOfTwoIsRefused) {
    const DmaLogRange range[] = {{0, 12 * kPageSize}};
    EXPECT_EQ(errno_of(check_dma_log_ranges(range, 3 * kPageSize)), EINVAL);
    EXPECT_EQ(errno_of(check_dma_log_ranges(range, 0)), EINVAL);
}

TEST(DmaLogRules, BitmapTooSmallForTheRangeIsRefused) {
    EXPECT_EQ(errno_of(check_dma_log_report({0, 9 * kPageSize}, kPageSize, util::Bitmap(8))),
              EINVAL);
    EXPECT_TRUE(check_dma_log_report({0, 9 * kPageSize}, kPageSize, util::Bitmap(9)));
}

TEST(DmaLogRules, ReportThatWrapsIsRefused) {
    EXPECT_EQ(
        errno_of(check_dma_log_report({0 - kPageSize, 2 * kPageSize}, kPageSize, util::Bitmap(2))),
        EOVERFLOW);
}

TEST(DmaLogRules, RangeUpToTheEndOfTheAddressSpaceIsAllowed) {
    const DmaLogRange range[] = {{0 - 2 * kPageSize, 2 * kPageSize}};
    EXPECT_TRUE(check_dma_log_ranges(range, kPageSize));
}

class DmaLogTest : public testing::Test {
 protected:
    void start(std::vector<DmaLogRange> ranges) { ASSERT_TRUE(log_.start(ranges)); }
    std::vector<uint64_t> report(DmaLogRange range, uint64_t page_size = kPageSize) {
        util::Bitmap out((range.length + page_size - 1) / page_size);
        EXPECT_TRUE(log_.report(range, page_size, out));
        return bits(out);
    }

    DmaLog log_;
};

TEST_F(DmaLogTest, ReportOutsideTheRangesIsRefused) {
    start({{4 * kPageSize, 4 * kPageSize}});
    util::Bitmap out(8);
    EXPECT_EQ(errno_of(log_.report({kPageSize, kPageSize}, kPageSize, out)), EINVAL);
    EXPECT_EQ(errno_of(log_.report({7 * kPageSize, 2 * kPageSize}, kPageSize, out)), EINVAL);
}

TEST_F(DmaLogTest, SecondStartIsRefused) {
    start({{0, kPageSize}});
    const DmaLogRange range[] = {{0, kPageSize}};
    EXPECT_EQ(errno_of(log_.start(range)), EINVAL);
}

TEST_F(DmaLogTest, StopForgetsWhatWasWritten) {
    start({{0, 4 * kPageSize}});
    log_.mark(0, 1);
    log_.stop();
    start({{0, 4 * kPageSize}});
    EXPECT_TRUE(report({0, 4 * kPageSize}).empty());
}

TEST_F(DmaLogTest, WritesBesideTheRangesAreNotKept) {
    start({{4 * kPageSize, 2 * kPageSize}, {64 * kPageSize, kPageSize}});
    log_.mark(3 * kPageSize, 100 * kPageSize);
    EXPECT_EQ(report({4 * kPageSize, 2 * kPageSize}), (std::vector<uint64_t>{0, 1}));
    EXPECT_EQ(report({64 * kPageSize, kPageSize}), (std::vector<uint64_t>{0}));
}

TEST_F(DmaLogTest, ReportSpansAdjacentRanges) {
    start({{4 * kPageSize, 4 * kPageSize}, {0, 4 * kPageSize}});
    log_.mark(3 * kPageSize, 2 * kPageSize);
    EXPECT_EQ(report({0, 8 * kPageSize}), (std::vector<uint64_t>{3, 4}));
}

TEST_F(DmaLogTest, CoarserReportMergesPages) {
    start({{0, 1024 * kPageSize}});
    log_.mark(5 * kPageSize, 1);
    log_.mark(511 * kPageSize, 1);
    log_.mark(512 * kPageSize, 1);
    EXPECT_EQ(report({0, 1024 * kPageSize}, 512 * kPageSize), (std::vector<uint64_t>{0, 1}));
    EXPECT_TRUE(report({0, 1024 * kPageSize}).empty());
}

TEST_F(DmaLogTest, WholeAddressSpaceCostsWhatIsWrittenOnly) {
    start({{0, uint64_t{1} << 63}, {uint64_t{1} << 63, uint64_t{1} << 63}});
    log_.mark(~uint64_t{0}, 1);
    log_.mark(uint64_t{1} << 40, kPageSize);
    EXPECT_EQ(report({0 - 4 * kPageSize, 4 * kPageSize}), (std::vector<uint64_t>{3}));
    EXPECT_EQ(report({uint64_t{1} << 40, 2 * kPageSize}), (std::vector<uint64_t>{0}));
}

TEST_F(DmaLogTest, NothingIsLostBetweenWritersAndReports) {
    constexpr uint64_t kPages = 4096;
    start({{0, kPages * kPageSize}});
    std::thread writer([&] {
        for (uint64_t page = 0; page < kPages; ++page) log_.mark(page * kPageSize, 1);
    });
    util::Bitmap all(kPages);
    for (int i = 0; i < 16; ++i) EXPECT_TRUE(log_.report({0, kPages * kPageSize}, kPageSize, all));
    writer.join();
    EXPECT_TRUE(log_.report({0, kPages * kPageSize}, kPageSize, all));
    EXPECT_EQ(all.count(), kPages);
}

}  // namespace
}  // namespace ferry::hw
