// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace ferry::util
