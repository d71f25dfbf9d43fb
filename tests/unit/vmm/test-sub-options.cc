// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "system/vmm/sub-options.h"

namespace ferry::vmm {
namespace {

TEST(SubOptions, UntakenKeyIsNamed) {
    auto options = *SubOptions::parse("-object", "a=1,b=2");
    EXPECT_EQ(options.take("a"), "1");
    EXPECT_EQ(options.finish().error().message(), "-object: Invalid parameter 'b'");
    EXPECT_EQ(options.take("b"), "2");
    EXPECT_TRUE(options.finish());
}

TEST(SubOptions, MissingKeyIsNamed) {
    auto options = *SubOptions::parse("-object", "a=1");
    EXPECT_EQ(options.take_required("id").error().message(), "-object: Parameter 'id' is missing");
}

TEST(SubOptions, EmptyPartIsRefused) {
    EXPECT_FALSE(SubOptions::parse("-object", ",a=1"));
}

TEST(SubOptions, TwoCommasAreOneAndATrailingOneIsNothing) {
    auto options = *SubOptions::parse("-x", "path=/a,,b,n=1,");
    EXPECT_EQ(options.take("path"), "/a,b");
    EXPECT_EQ(options.take("n"), "1");
    EXPECT_TRUE(options.finish());
}

TEST(SubOptions, FirstPartMayImplyItsKey) {
    auto options = *SubOptions::parse("-machine", "q35,accel=qtest", "type");
    EXPECT_EQ(options.take("type"), "q35");
    auto without = *SubOptions::parse("-machine", ",accel=qtest", "type");
    EXPECT_FALSE(without.has("type"));
    EXPECT_EQ(without.take("accel"), "qtest");
}

TEST(SubOptions, BareWordsAreSwitches) {
    auto options = *SubOptions::parse("-chardev", "socket,server,nowait", "backend");
    EXPECT_EQ(options.take("server"), "on");
    EXPECT_EQ(options.take("wait"), "off");
}

TEST(SubOptions, LastValueWinsAlsoAfterMerging) {
    auto options = *SubOptions::parse("-machine", "a=1,a=2");
    options.merge(*SubOptions::parse("-machine", "a=3"));
    EXPECT_EQ(options.take("a"), "3");
    EXPECT_TRUE(options.finish());
}

TEST(ParseSize, TextThatIsNoSizeIsRefused) {
    for (const std::string_view text : {"", "M", "1X", "-1", "1..5M", "0x", "1.5.5M",
                                        "99999999999999999999", "99999999T", "1 M", "1.M", "1e3"}) {
        EXPECT_FALSE(parse_size(text)) << text;
    }
}

TEST(ParseSize, SuffixesFractionsAndDefaultUnit) {
    EXPECT_EQ(*parse_size("64"), 64U);
    EXPECT_EQ(*parse_size("64", 1 << 20), 64U << 20);
    EXPECT_EQ(*parse_size("64k", 1 << 20), 64U << 10);
    EXPECT_EQ(*parse_size("1.5G"), 3ULL << 29);
    EXPECT_EQ(*parse_size("0x1000"), 4096U);
    EXPECT_EQ(*parse_size("10B"), 10U);
}

}  // namespace
}  // namespace ferry::vmm
