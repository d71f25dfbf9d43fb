// SPDX-License-Identifier: BSD-2-Clause
// The VMDESCRIPTION behind a stream: how many bytes each field of each device's body has. It comes
// from the stream's writer and is believed only as far as footers confirm it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/ferry-stream/findings.h"
#include "tools/ferry-stream/input.h"

namespace ferry::stream_tool {

struct DescribedBody;

struct DescribedField {
    std::string name;
    std::string type;
    uint64_t size = 0;   // of one element
    uint64_t count = 1;  // elements of an array
    // What one element is made of; empty, or one that adds up to `size`.
    std::vector<DescribedBody> structure;
};

// A vmstate: its fields, then its subsections.
struct DescribedBody {
    enum class Presence : uint8_t { Always, Optional } presence = Presence::Always;
    std::string name = {};  // of a subsection, as in the stream
    uint64_t version = 0;
    uint64_t size = 0;  // fields and subsections with their headers
    std::vector<DescribedField> fields = {};
    std::vector<DescribedBody> subsections = {};
};

struct DescribedDevice {
    std::string name;
    uint64_t instance = 0;
    DescribedBody body;
};

class Description {
 public:
    // `at` is where the text stands, for the findings: what breaks the rules is told there, and
    // the rest is used. An Error when it is no JSON or beyond the limits.
    static Result<Description> parse(std::string_view text, uint64_t at, Findings& findings);

    std::optional<uint64_t> page_size() const { return page_size_; }
    const std::vector<DescribedDevice>& devices() const { return devices_; }  // in stream order
    std::optional<size_t> index_of(const std::string& name, uint64_t instance) const;

 private:
    std::optional<uint64_t> page_size_;
    std::vector<DescribedDevice> devices_;
    std::map<std::pair<std::string, uint64_t>, size_t> index_;
};

// Where a description stands: its element's type byte, and the text behind its length.
struct DescriptionPlace {
    uint64_t element = 0;
    uint64_t text = 0;
    uint32_t length = 0;
};

// Looks at the end of the input for the description, before anything else is read. Nothing where
// there is none, or where it is broken.
Result<std::optional<Description>> find_description(const Input& input);
// Reads the text of one; `place` must lie within the input and the limit.
Result<std::string> read_description(const Input& input, const DescriptionPlace& place);

// Bodies that look the same everywhere, for streams without a description: null if unknown.
const DescribedBody* well_known_body(std::string_view name, uint32_t version);

}  // namespace ferry::stream_tool
