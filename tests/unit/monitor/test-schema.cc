// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <limits>

#include "monitor/schema.h"

namespace ferry::monitor {
namespace {

constexpr auto kOptional = Presence::Optional;

Schema colours() {
    return Schema::enumeration({"red", "blue"});
}

std::vector<Member> example() {
    return {{"name", {JsonType::String}},
            {"count", {JsonType::Uint8}, kOptional},
            {"size", {JsonType::Uint64}, kOptional},
            {"level", {JsonType::Integer}, kOptional},
            {"on", {JsonType::Bool}, kOptional},
            {"maybe", {JsonType::StringOrNull}, kOptional},
            {"colour", colours(), kOptional},
            {"list",
             Schema::array_of(
                 Schema::object({{"state", {JsonType::Bool}}, {"colour", colours(), kOptional}})),
             kOptional},
            {"colours", Schema::array_of(colours()), kOptional}};
}

std::string check(std::string_view text) {
    const auto result = check_members(example(), Json::parse(text), "");
    return result ? "good" : result.error().message();
}

struct Case {
    std::string_view arguments;
    std::string_view answer;
};
class Arguments : public testing::TestWithParam<Case> {};
TEST_P(Arguments, AreCheckedWithTheTextsOfQmp) {
    EXPECT_EQ(check(GetParam().arguments), GetParam().answer);
}
INSTANTIATE_TEST_SUITE_P(
    Table, Arguments,
    testing::Values(
        Case{R"({"name": "x"})", "good"}, Case{R"({})", "Parameter 'name' is missing"},
        Case{R"({"name": "x", "other": 1})", "Parameter 'other' is unexpected"},
        Case{R"({"other": 1})", "Parameter 'name' is missing"},
        Case{R"({"name": 1})", "Invalid parameter type for 'name', expected: string"},
        Case{R"({"name": "x", "on": 1})", "Invalid parameter type for 'on', expected: boolean"},
        Case{R"({"name": "x", "count": "1"})",
             "Invalid parameter type for 'count', expected: integer"},
        Case{R"({"name": "x", "count": 255})", "good"},
        Case{R"({"name": "x", "count": 256})", "Parameter 'count' expects uint8_t"},
        Case{R"({"name": "x", "count": -1})", "Parameter 'count' expects uint8_t"},
        Case{R"({"name": "x", "size": -1})", "good"},
        Case{R"({"name": "x", "size": 18446744073709551615})", "good"},
        Case{R"({"name": "x", "size": 1.5})", "Parameter 'size' expects uint64"},
        Case{R"({"name": "x", "level": -5})", "good"},
        Case{R"({"name": "x", "level": 9223372036854775808})",
             "Invalid parameter type for 'level', expected: integer"},
        Case{R"({"name": "x", "maybe": null})", "good"},
        Case{R"({"name": "x", "maybe": 0})",
             "Invalid parameter type for 'maybe', expected: StrOrNull"},
        Case{R"({"name": "x", "colour": "blue"})", "good"},
        Case{R"({"name": "x", "colour": "green"})",
             "Parameter 'colour' does not accept value 'green'"},
        Case{R"({"name": "x", "list": {}})", "Invalid parameter type for 'list', expected: array"},
        Case{R"({"name": "x", "list": [{"state": true}, {}]})",
             "Parameter 'list[1].state' is missing"},
        Case{R"({"name": "x", "list": [1]})",
             "Invalid parameter type for 'list[0]', expected: object"},
        Case{R"({"name": "x", "list": [{"state": true, "x": 1}]})",
             "Parameter 'list[0].x' is unexpected"},
        Case{R"({"name": "x", "list": [{"state": true, "colour": "tree"}]})",
             "Parameter 'colour' does not accept value 'tree'"},
        Case{R"({"name": "x", "colours": ["red", "tree"]})",
             "Parameter 'null' does not accept value 'tree'"}));

TEST(Schema, MinusOneIsTheLargestUnsignedNumber) {
    EXPECT_EQ(to_uint64(Json::parse("-1")), std::numeric_limits<uint64_t>::max());
}

}  // namespace
}  // namespace ferry::monitor
