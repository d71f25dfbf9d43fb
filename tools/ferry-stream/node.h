// SPDX-License-Identifier: BSD-2-Clause
// What is told about a stream: a tree of its parts, and the problems found.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "util/result.h"

namespace ferry::stream_tool {

// One part of the stream. Attributes are kept in the order in which they are printed.
struct Node {
    using Value = std::variant<uint64_t, int64_t, bool, std::string>;
    struct Attribute {
        std::string_view name;  // a literal
        Value value;
    };

    std::string_view type;  // a literal: "start", "page", "field", ...
    uint64_t offset = 0;
    uint64_t size = 0;
    std::vector<Attribute> attributes = {};
    std::vector<Node> children = {};

    Node& number(std::string_view name, uint64_t value);
    Node& integer(std::string_view name, int64_t value);
    Node& flag(std::string_view name);                          // true
    Node& text(std::string_view name, std::string_view value);  // unprintable bytes become \xNN
    // Returns the new child; valid until the next one is added.
    Node& add(Node child);
};

// Bytes from outside as printable ASCII.
std::string printable(std::string_view text);
std::string printable(std::string_view text, size_t max);

enum class Severity : uint8_t {
    Note,    // unusual or not checked; a reader gets along with it
    Problem  // breaks a rule
};

struct Problem {
    Severity severity = Severity::Problem;
    uint64_t offset = 0;
    std::string_view rule;  // a literal: a short name, stable over versions
    std::string reason;
};

}  // namespace ferry::stream_tool
