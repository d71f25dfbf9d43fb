// SPDX-License-Identifier: BSD-2-Clause
// Copies bytes out of a stream: the bodies of a section, or the image of a VFIO device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tools/ferry-stream/findings.h"
#include "tools/ferry-stream/input.h"

namespace ferry::stream_tool {

// "idstr" or "idstr#instance".
struct SectionName {
    std::string idstr;
    std::optional<uint32_t> instance;
};
Result<SectionName> parse_section_name(std::string_view text);

enum class Extract : uint8_t { Section, Image };

struct Extracted {
    uint64_t bytes = 0;
    uint64_t pieces = 0;
};

// Reads the stream twice: to find out what there is (and to check it), then to copy. `path` is
// written only if there is something; it may be a pipe, but not the input. A name that fits several
// instances is refused. InvalidArgument: no such thing in the stream.
Result<Extracted> extract(const Input& input, Findings& findings, Extract what,
                          const SectionName& name, const std::string& path);

}  // namespace ferry::stream_tool
