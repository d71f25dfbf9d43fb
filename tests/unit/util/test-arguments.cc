// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <vector>

#include "util/arguments.h"

namespace ferry::util {
namespace {

using ItemKind = ArgumentReader::Item::Kind;

TEST(ArgumentReader, OptionsTakeTheirValueInBothForms) {
    const std::vector<std::string> arguments = {"word", "--a=1=2", "--b", "-3", "-c", "x", "-"};
    ArgumentReader reader(arguments);
    EXPECT_EQ(reader.next()->text, "word");
    EXPECT_EQ(reader.next()->text, "--a");
    EXPECT_EQ(reader.value(), "1=2");
    EXPECT_TRUE(reader.end_option());
    EXPECT_EQ(reader.next()->text, "--b");
    EXPECT_EQ(reader.value(), "-3");
    EXPECT_EQ(reader.next()->text, "-c");
    EXPECT_EQ(reader.value(), "x");
    const auto dash = reader.next();
    EXPECT_EQ(dash->kind, ItemKind::Word);
    EXPECT_EQ(dash->text, "-");
    EXPECT_FALSE(reader.next());
}

TEST(ArgumentReader, ValueThatNobodyTakesAndOneThatIsMissingAreNamed) {
    const std::vector<std::string> arguments = {"--flag=on", "--flag", "-f=on"};
    ArgumentReader reader(arguments);
    ASSERT_TRUE(reader.next());
    EXPECT_EQ(reader.end_option().error().message(), "--flag takes no value");
    EXPECT_EQ(reader.next()->text, "--flag");
    EXPECT_TRUE(reader.end_option());
    EXPECT_EQ(reader.next()->text, "-f=on");  // only long options have that form
    EXPECT_EQ(reader.value().error().message(), "-f=on wants a value");
}

}  // namespace
}  // namespace ferry::util
