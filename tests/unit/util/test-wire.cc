// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "util/wire.h"

namespace ferry::util {
namespace {

TEST(Wire, BigEndianBytesInOrder) {
    WireWriter out;
    out.be32(0x5145564d).be16(0x0102).u8(7).str8("ram");
    const std::vector<uint8_t> expected{0x51, 0x45, 0x56, 0x4d, 1, 2, 7, 3, 'r', 'a', 'm'};
    ASSERT_EQ(out.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(static_cast<uint8_t>(out.view()[i]), expected[i]) << i;
    }
}

TEST(Wire, EveryTruncationIsAnErrorAndNothingIsReadPastTheEnd) {
    WireWriter out;
    out.be64(1).be32(2).be16(3).str8("name");
    for (size_t length = 0; length < out.size(); ++length) {
        WireReader in(out.view().first(length));
        const bool whole = in.be64() && in.be32() && in.be16() && in.str8();
        EXPECT_FALSE(whole) << length;
    }
}

}  // namespace
}  // namespace ferry::util
