// SPDX-License-Identifier: BSD-2-Clause
// What a line is taken for: after much, little and nothing was sent.
#include <gtest/gtest.h>

#include "migration/rate.h"

namespace ferry::migration {
namespace {

using std::chrono::milliseconds;

class Rate : public testing::Test {
 protected:
    // A round that sends so many bytes and is inside the channel for so long.
    void round(uint64_t bytes, util::Nanoseconds writing) {
        rate.begin_round({}, writing_, position_);
        writing_ += writing;
        position_ += bytes;
        rate.end_round(writing_, position_);
    }
    static constexpr uint64_t kMiB = 1024 * 1024;
    static constexpr uint64_t kGuess = 125'000'000;

    RateControl rate{{}};

 private:
    util::Nanoseconds writing_{};
    uint64_t position_ = 0;
};

TEST_F(Rate, NothingIsKnownBeforeTheFirstRound) {
    EXPECT_EQ(rate.bandwidth(), 0U);
}

TEST_F(Rate, MuchIsMeasured) {
    round(100 * kMiB, milliseconds(1000));
    EXPECT_EQ(rate.bandwidth(), 100 * kMiB);
    round(10 * kMiB, milliseconds(1000));
    EXPECT_EQ(rate.bandwidth(), 10 * kMiB);
}

TEST_F(Rate, SlowLineIsNoticedAfterLittle) {
    round(100'000, milliseconds(100));
    EXPECT_EQ(rate.bandwidth(), 1'000'000U);
}

TEST_F(Rate, FastLineIsNotBelievedAfterLittle) {
    round(kMiB, milliseconds(1));
    EXPECT_EQ(rate.bandwidth(), kGuess);
}

TEST_F(Rate, LittleThatWasDelayedOnceIsNoSlowLine) {
    round(40'000, milliseconds(30));
    EXPECT_EQ(rate.bandwidth(), kGuess);
}

TEST_F(Rate, RoundsThatFindNothingMeasureNothing) {
    round(40'000, util::Nanoseconds(10'000));
    for (int i = 0; i < 100'000; ++i) round(100, util::Nanoseconds(20'000));
    EXPECT_EQ(rate.bandwidth(), kGuess);
    round(500 * kMiB, milliseconds(1000));
    const uint64_t measured = rate.bandwidth();
    EXPECT_GT(measured, kGuess);
    for (int i = 0; i < 100'000; ++i) round(100, util::Nanoseconds(20'000));
    EXPECT_EQ(rate.bandwidth(), measured);
}

// --- max-bandwidth

class Window : public testing::Test {
 protected:
    static constexpr uint64_t kLimit = 10'000'000;  // a million in each window of 100 ms
    RateControl rate{{}};
};

TEST_F(Window, IsFullWhenItsShareWasSent) {
    EXPECT_FALSE(rate.window_is_full(milliseconds(10), 999'999, kLimit));
    EXPECT_TRUE(rate.window_is_full(milliseconds(10), 1'000'000, kLimit));
    EXPECT_EQ(rate.window_end(), milliseconds(100));
}

TEST_F(Window, NextOneHasAShareOfItsOwnAndNoneIsSaved) {
    EXPECT_TRUE(rate.window_is_full(milliseconds(99), 1'500'000, kLimit));
    // Idle for half a second: that much is not made up for.
    EXPECT_FALSE(rate.window_is_full(milliseconds(600), 1'500'000, kLimit));
    EXPECT_FALSE(rate.window_is_full(milliseconds(601), 2'499'999, kLimit));
    EXPECT_TRUE(rate.window_is_full(milliseconds(602), 2'500'000, kLimit));
}

TEST_F(Window, WhatWasTooMuchIsTakenFromTheNextOnes) {
    EXPECT_TRUE(rate.window_is_full(milliseconds(10), 3'500'000, kLimit));
    EXPECT_TRUE(rate.window_is_full(milliseconds(100), 3'500'000, kLimit));
    EXPECT_EQ(rate.window_end(), milliseconds(200));
    EXPECT_TRUE(rate.window_is_full(milliseconds(200), 3'500'000, kLimit));
    EXPECT_FALSE(rate.window_is_full(milliseconds(300), 3'500'000, kLimit));
    EXPECT_TRUE(rate.window_is_full(milliseconds(301), 4'000'000, kLimit));
}

TEST_F(Window, SmallLimitHoldsOverTimeHoweverLargeTheSteps) {
    constexpr uint64_t kStep = 64 * 1024;
    uint64_t position = 0;
    for (int ms = 0; ms < 100'000; ++ms) {
        if (!rate.window_is_full(milliseconds(ms), position, 100'000)) position += kStep;
    }
    EXPECT_LE(position, 100 * 100'000 + kStep);
    EXPECT_GE(position, 99 * 100'000U);
}

TEST(Throughput, IsWhatWentOutInTheLastPeriod) {
    Throughput line{{}};
    EXPECT_EQ(line.measure(milliseconds(50), 1'000'000), 0U);
    EXPECT_EQ(line.measure(milliseconds(100), 1'000'000), 10'000'000U);
    EXPECT_EQ(line.measure(milliseconds(150), 9'000'000), 10'000'000U);
    EXPECT_EQ(line.measure(milliseconds(300), 9'000'000), 40'000'000U);
    EXPECT_EQ(line.measure(milliseconds(400), 9'000'000), 0U);
}

TEST_F(Window, RoundEndsWithItsWindowsShareOrAfterHalfOfItsTime) {
    rate.begin_round(milliseconds(10), {}, 0);
    EXPECT_FALSE(rate.round_is_full(milliseconds(59), 999'999, kLimit));
    EXPECT_TRUE(rate.round_is_full(milliseconds(60), 0, kLimit));
    EXPECT_TRUE(rate.round_is_full(milliseconds(11), 1'000'000, kLimit));
}

TEST_F(Window, NoLimitIsNone) {
    EXPECT_FALSE(rate.window_is_full(milliseconds(10), UINT64_MAX, 0));
    rate.begin_round(milliseconds(10), {}, 0);
    EXPECT_FALSE(rate.round_is_full(milliseconds(11), UINT64_MAX, 0));
}

// --- downtime-limit

TEST(SwitchoverThreshold, IsWhatTheLineTakesInTheLimit) {
    EXPECT_EQ(switchover_threshold(1'000'000, 300), 300'000U);
    EXPECT_EQ(switchover_threshold(1'000'000, 0), 0U);
    EXPECT_EQ(switchover_threshold(0, 300), 0U);
    EXPECT_EQ(switchover_threshold(UINT64_MAX, 2'000'000), UINT64_MAX);
}

}  // namespace
}  // namespace ferry::migration
