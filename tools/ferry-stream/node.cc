// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/node.h"

#include <fmt/format.h>

namespace ferry::stream_tool {

Node& Node::number(std::string_view name, uint64_t value) {
    attributes.push_back({name, value});
    return *this;
}

Node& Node::integer(std::string_view name, int64_t value) {
    attributes.push_back({name, value});
    return *this;
}

Node& Node::flag(std::string_view name) {
    attributes.push_back({name, true});
    return *this;
}

Node& Node::text(std::string_view name, std::string_view value) {
    attributes.push_back({name, printable(value)});
    return *this;
}

Node& Node::add(Node child) {
    children.push_back(std::move(child));
    return children.back();
}

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f && c != '\\') {
            out += c;
        } else {
            out += fmt::format("\\x{:02x}", byte);
        }
    }
    return out;
}

std::string printable(std::string_view text, size_t max) {
    if (text.size() <= max) return printable(text);
    return printable(text.substr(0, max)) + "...";
}

}  // namespace ferry::stream_tool
