// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "monitor/json.h"

namespace ferry::monitor {
namespace {

// All that a framer makes of a text: each message's text, or "!" and the error.
std::vector<std::string> frames(JsonFramer& framer, std::string_view text) {
    std::vector<std::string> out;
    ConstBytes input = bytes_of(text);
    while (auto done = framer.next(input)) {
        out.push_back(*done ? **done : "!" + done->error().message());
    }
    return out;
}
std::vector<std::string> frames(std::string_view text) {
    JsonFramer framer;
    return frames(framer, text);
}
using Strings = std::vector<std::string>;

TEST(JsonFramer, MessageIsCompleteAtItsClosingBrace) {
    EXPECT_EQ(frames(R"({"a": [1, {"b": 2}]})"), Strings{R"({"a": [1, {"b": 2}]})"});
}

TEST(JsonFramer, ByteByByteGivesTheSame) {
    JsonFramer framer;
    const std::string text = R"( {"a": "}{", "b": [true]} )";
    Strings all;
    for (const char c : text) {
        for (auto& frame : frames(framer, {&c, 1})) all.push_back(frame);
    }
    EXPECT_EQ(all, Strings{R"({"a": "}{", "b": [true]})"});
}

TEST(JsonFramer, SeveralMessagesInOneSegment) {
    EXPECT_EQ(frames("{}{}\r\n[1] {\"a\": 1}"), (Strings{"{}", "{}", "[1]", "{\"a\": 1}"}));
}

TEST(JsonFramer, SingleQuotesBecomeDoubleQuotes) {
    EXPECT_EQ(frames(R"({'it\'s': 'a "b" \n'})"), Strings{R"({"it's": "a \"b\" \n"})"});
}

TEST(JsonFramer, ScalarsOutsideOfBracketsAreMessages) {
    EXPECT_EQ(frames("null 'x' 12{}"), (Strings{"null", "\"x\"", "12", "{}"}));
}

TEST(JsonFramer, Byte0xffDropsWhatWasBegunAndStartsClean) {
    EXPECT_EQ(frames("{'a\xff{}"), (Strings{"!JSON parse error, stray '\\xff'", "{}"}));
}

TEST(JsonFramer, ControlCharacterInAStringIsStray) {
    EXPECT_EQ(frames("{'execute': 'x\n{}"), (Strings{"!JSON parse error, stray '\\x0a'", "{}"}));
}

TEST(JsonFramer, StrayCharacterIsOneErrorUntilAnObjectBegins) {
    EXPECT_EQ(frames("%%p {}"), (Strings{"!JSON parse error, stray '%'", "{}"}));
}

TEST(JsonFramer, WrongBracketEndsTheMessage) {
    EXPECT_EQ(frames("{] {}"), (Strings{"{]", "{}"}));
    EXPECT_EQ(frames("} {}"), (Strings{"}", "{}"}));
}

TEST(JsonFramer, DeeperThanTheLimitIsRefusedUpToTheEndOfTheLine) {
    const std::string deep(kMaxDepth, '[');
    EXPECT_EQ(frames(deep + std::string(kMaxDepth, ']')).size(), 1U);
    EXPECT_EQ(frames(deep + "[{'execute': 'quit'}]\n{}"),
              (Strings{"!JSON nesting depth limit exceeded", "{}"}));
}

TEST(JsonFramer, LongerThanTheLimitIsRefusedUpToTheEndOfTheLine) {
    JsonFramer framer(16);
    EXPECT_EQ(frames(framer, "{\"a\": \"012345678\", \"b\": {}}\n{}"),
              (Strings{"!JSON token size limit exceeded", "{}"}));
    EXPECT_EQ(frames(framer, "{\"a\": \"0123456\"}"), Strings{"{\"a\": \"0123456\"}"});
}

TEST(JsonFramer, WhatIsTooLargeIsSkippedUpToItsOwnEnd) {
    const auto refused_and_next = [](std::string_view large) {
        JsonFramer framer(16);
        const Strings all = frames(framer, std::string(large) + "{\"b\": 1}");
        return all == Strings{"!JSON token size limit exceeded", "{\"b\": 1}"};
    };
    EXPECT_TRUE(refused_and_next(R"({"a": "0123456789abcdef"})"));
    EXPECT_TRUE(refused_and_next(R"({"a": "0123456789abcdef", "c": {"execute": "quit"}})"));
    EXPECT_TRUE(refused_and_next(R"(['0123456789abcdef}]\'{"', {'execute': 'quit'}])"));
    EXPECT_TRUE(refused_and_next(R"({"a": "012345678"})"));
    EXPECT_TRUE(refused_and_next(R"({"a": "01234567"})"));  // the last bracket is too much
    EXPECT_TRUE(refused_and_next("01234567890123456789"));
    EXPECT_TRUE(refused_and_next("'01234567890123456789{'"));
    const std::string deep(kMaxDepth + 1, '[');
    EXPECT_EQ(frames(deep + std::string(kMaxDepth + 1, ']') + "{}"),
              (Strings{"!JSON nesting depth limit exceeded", "{}"}));
}

TEST(JsonFramer, ResetForgetsAHalfMessage) {
    JsonFramer framer;
    EXPECT_EQ(frames(framer, "{'a': "), Strings{});
    framer.reset();
    EXPECT_EQ(frames(framer, "{}"), Strings{"{}"});
}

TEST(JsonFramer, AnyTruncationFollowedByACleanStartIsFollowedByTheNextMessage) {
    const std::string text =
        R"({"execute": "x", 'arguments': {"a": [1, -2.5e3, true, null, "\u00e9"]}})";
    for (size_t length = 0; length < text.size(); ++length) {
        const Strings all = frames(text.substr(0, length) + "\xff" + "{\"b\": 1}");
        ASSERT_EQ(all.size(), 2U) << length;
        EXPECT_EQ(all.front(), "!JSON parse error, stray '\\xff'") << length;
        EXPECT_EQ(all.back(), "{\"b\": 1}") << length;
    }
}

TEST(JsonFramer, AnyBytesGiveMessagesOrErrorsAndNeverStopTheStream) {
    std::mt19937 random(1);
    constexpr std::string_view kAlphabet = "{}[]:,'\"\\ \n\t\xff\x01%aetrufnls0123.-\xc3\xa9";
    for (int round = 0; round < 300; ++round) {
        JsonFramer framer;
        std::string text;
        for (int i = 0; i < 200; ++i) text += kAlphabet[random() % kAlphabet.size()];
        for (const std::string& frame : frames(framer, text)) {
            if (!frame.starts_with('!')) (void)parse_json(frame);
        }
        const Strings after = frames(framer, "\xff\xff{\"ok\": 1}");
        ASSERT_FALSE(after.empty()) << text;
        EXPECT_EQ(after.back(), "{\"ok\": 1}") << text;
    }
}

struct BadJson {
    std::string_view text;
    std::string_view error;
};
class ParseError : public testing::TestWithParam<BadJson> {};
TEST_P(ParseError, SaysWhatIsWrong) {
    const auto parsed = parse_json(GetParam().text);
    ASSERT_FALSE(parsed);
    EXPECT_TRUE(parsed.error().message().starts_with(GetParam().error)) << parsed.error().message();
}
INSTANTIATE_TEST_SUITE_P(
    Texts, ParseError,
    testing::Values(BadJson{R"({"a": 1, "a": 2})", "JSON parse error, duplicate key"},
                    BadJson{R"({"a": tru})", "JSON parse error, invalid keyword"},
                    BadJson{R"({"a": })", "JSON parse error, expecting value"},
                    BadJson{R"({"a" 1})", "JSON parse error, missing : in object pair"},
                    BadJson{R"({1: 1})", "JSON parse error, key is not a string in object"},
                    BadJson{R"({"a": 1 "b": 2})", "JSON parse error, expected separator in dict"},
                    BadJson{R"([1 2])", "JSON parse error, expected separator in list"},
                    BadJson{"{\"a\": \"\xc3\"}", "JSON parse error, invalid string"},
                    BadJson{R"({"a": 1e999})", "JSON parse error, "},
                    BadJson{"}", "JSON parse error, expecting value"}));

TEST(ParseJson, DeeperThanTheLimitIsRefused) {
    const auto nested = [](size_t depth) {
        return std::string(depth, '[') + std::string(depth, ']');
    };
    EXPECT_TRUE(parse_json(nested(kMaxDepth)));
    const auto refused = parse_json(nested(kMaxDepth + 1));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message(), "JSON parse error, nesting depth limit exceeded");
}

TEST(ParseJson, KeepsAllIntegersOf64Bits) {
    const auto parsed = parse_json("[18446744073709551615, -9223372036854775808]");
    ASSERT_TRUE(parsed);
    EXPECT_EQ((*parsed)[0].get<uint64_t>(), std::numeric_limits<uint64_t>::max());
    EXPECT_EQ((*parsed)[1].get<int64_t>(), std::numeric_limits<int64_t>::min());
}

TEST(ParseJson, NestedValuesAreWhereTheyBelong) {
    const auto parsed = parse_json(R"({"a": [{"b": {"c": [1, 2]}}, 3], "d": null})");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(*parsed, Json::parse(R"({"a": [{"b": {"c": [1, 2]}}, 3], "d": null})"));
}

TEST(ToText, SeparatorsHaveASpace) {
    EXPECT_EQ(to_text(Json::parse(R"({"a":[1,true,null],"b":{}})")),
              R"({"a": [1, true, null], "b": {}})");
}

TEST(ToText, PrettyHasOneMemberPerLine) {
    EXPECT_EQ(to_text(Json::parse(R"({"a":[1]})"), Layout::Pretty),
              "{\n    \"a\": [\n        1\n    ]\n}");
}

TEST(ToText, WholeFloatsLookLikeIntegersAndInfinityLikeZero) {
    EXPECT_EQ(to_text(Json(0.0)), "0");
    EXPECT_EQ(to_text(Json(12.5)), "12.5");
    EXPECT_EQ(to_text(Json(std::numeric_limits<double>::infinity())), "0");
}

TEST(ToText, TextOutsideAsciiIsEscapedAndBadBytesAreReplaced) {
    EXPECT_EQ(to_text(Json("\xc3\xa9\n")), R"("\u00e9\n")");
    EXPECT_EQ(to_text(Json("a\xff")), R"("a\ufffd")");
}

}  // namespace
}  // namespace ferry::monitor
