// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "util/bitmap.h"

namespace ferry::util {
namespace {

TEST(Bitmap, RangeAcrossWordsSetsExactlyTheRange) {
    Bitmap map(200);
    map.set_range(60, 80);
    EXPECT_EQ(map.count(), 80U);
    EXPECT_EQ(map.find_set(0), 60U);
    EXPECT_EQ(map.find_clear(60), 140U);
    map.clear_range(64, 64);
    EXPECT_EQ(map.count(), 16U);
    EXPECT_EQ(map.find_set(64), 128U);
}

TEST(Bitmap, SearchEndsAtTheSize) {
    Bitmap map(70);
    EXPECT_EQ(map.find_set(0), 70U);
    map.set_all();
    EXPECT_EQ(map.count(), 70U);
    EXPECT_EQ(map.find_clear(0), 70U);
}

TEST(AtomicBitmap, CollectReportsOnceAndOrs) {
    AtomicBitmap log(130);
    Bitmap out(130);
    out.set(0);
    log.set_range(63, 3);
    log.collect_into(out);
    EXPECT_EQ(out.count(), 4U);
    Bitmap again(130);
    log.collect_into(again);
    EXPECT_TRUE(again.none());
}

TEST(Bitmap, OrRangeAgreesWithBitByBit) {
    std::mt19937 random(7);
    for (int round = 0; round < 4000; ++round) {
        const uint64_t most = round % 2 == 0 ? 300 : 3000;
        Bitmap from(1 + random() % most);
        Bitmap to(1 + random() % most);
        // Dense, or mostly empty, so that empty stretches are passed over.
        const uint64_t step = round % 3 == 0 ? 2 : 1 + random() % 1500;
        for (uint64_t bit = random() % step; bit < from.size(); bit += step) from.set(bit);
        for (uint64_t bit = 0; bit < to.size(); bit += 5) to.set(bit);
        const bool aligned = round % 4 == 0;
        const uint64_t from_bit = random() % from.size() / (aligned ? 64 : 1) * (aligned ? 64 : 1);
        const uint64_t to_bit = random() % to.size() / (aligned ? 64 : 1) * (aligned ? 64 : 1);
        const uint64_t count =
            random() % (std::min(from.size() - from_bit, to.size() - to_bit) + 1);
        Bitmap expected = to;
        for (uint64_t i = 0; i < count; ++i) {
            if (from.test(from_bit + i)) expected.set(to_bit + i);
        }
        const uint64_t before = to.count();
        const uint64_t added = to.or_range(to_bit, from, from_bit, count);
        ASSERT_TRUE(std::ranges::equal(to.words(), expected.words())) << round;
        ASSERT_EQ(added, to.count() - before) << round;
    }
}

TEST(Bitmap, SearchAndRunsAgreeWithBitByBit) {
    std::mt19937 random(8);
    for (int round = 0; round < 1000; ++round) {
        Bitmap map(1 + random() % 5000);
        for (unsigned runs = random() % 4; runs > 0; --runs) {
            const uint64_t first = random() % map.size();
            const uint64_t before = map.count();
            const uint64_t added = map.set_range(first, random() % (map.size() - first) / 3);
            ASSERT_EQ(added, map.count() - before);
        }
        const uint64_t from = random() % map.size();
        uint64_t expected = from;
        while (expected < map.size() && !map.test(expected)) ++expected;
        const uint64_t found = map.find_set(from);
        ASSERT_EQ(found, expected);
        if (found == map.size()) continue;
        const uint64_t max = 1 + random() % 400;
        uint64_t run = 0;
        while (run < max && found + run < map.size() && map.test(found + run)) ++run;
        ASSERT_EQ(map.run_of_set(found, max), run);
    }
}

}  // namespace
}  // namespace ferry::util
