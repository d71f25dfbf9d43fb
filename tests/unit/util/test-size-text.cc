// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>

#include "util/size-text.h"

namespace ferry::util {
namespace {

constexpr uint64_t kMi = uint64_t{1} << 20;

TEST(SizeText, WhatIsNoSizeIsInvalid) {
    for (const std::string_view text : {"", "k", "-1", "+1", " 1", "1 ", "1kk", "1kb", "1x", "0x",
                                        "0x1k", "0x1.8", "1.", "1.k", "1.5", "1.5B", ".5k"}) {
        const auto size = parse_size_text(text);
        ASSERT_FALSE(size) << text;
        EXPECT_EQ(size.error(), EINVAL) << text;
    }
}

TEST(SizeText, WhatDoesNotFitIsOutOfRange) {
    for (const std::string_view text : {"18446744073709551616", "16E", "0x10000000000000000"}) {
        const auto size = parse_size_text(text);
        ASSERT_FALSE(size) << text;
        EXPECT_EQ(size.error(), ERANGE) << text;
    }
    EXPECT_FALSE(parse_size_text("0x100000000000", kMi));
}

TEST(SizeText, NumbersSuffixesAndFractions) {
    const struct {
        std::string_view text;
        uint64_t unit;
        uint64_t bytes;
    } kCases[] = {
        {"0", 1, 0},
        {"4096", 1, 4096},
        {"0x1000", 1, 4096},
        {"4k", 1, 4096},
        {"4K", kMi, 4096},
        {"7B", kMi, 7},
        {"3", kMi, 3 * kMi},
        {"0x10", kMi, 16 * kMi},
        {"1.5", kMi, kMi + kMi / 2},
        {"1.5G", 1, (uint64_t{3} << 30) / 2},
        {"0.000001k", 1, 0},
        {"15.999999999999999999E", 1, UINT64_MAX - 1},
        {"18446744073709551615", 1, UINT64_MAX},
    };
    for (const auto& one : kCases) {
        const auto size = parse_size_text(one.text, one.unit);
        ASSERT_TRUE(size) << one.text;
        EXPECT_EQ(*size, one.bytes) << one.text;
    }
}

}  // namespace
}  // namespace ferry::util
