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

}  // namespace
}  // namespace ferry::migration
