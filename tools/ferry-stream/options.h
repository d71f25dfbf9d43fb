// SPDX-License-Identifier: BSD-2-Clause
// ferry-stream's command line.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/extract.h"

namespace ferry::stream_tool {

enum class Action : uint8_t { Help, Version, Print, Check, ExtractSection, ExtractImage };
enum class Format : uint8_t { Text, Json };

struct Options {
    Action action = Action::Print;
    Format format = Format::Text;
    Detail detail = Detail::Summary;
    std::string input;
    uint64_t offset = 0;  // of the stream in its file
    SectionName wanted;   // of the extracting actions
    std::string output;   // likewise
};

// An Error's text is for the person; the exit status is then 2.
Result<Options> parse_options(std::span<const std::string> arguments);
std::string_view help_text();

}  // namespace ferry::stream_tool
