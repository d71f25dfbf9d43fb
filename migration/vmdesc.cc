// SPDX-License-Identifier: BSD-2-Clause
#include "migration/vmdesc.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "system/memory.h"
#include "util/wire.h"

namespace ferry::migration {

namespace {
constexpr std::string_view kUuidPart =
    R"(, "subsections": [{"vmsd_name": "configuration/uuid", "version": 1, "fields": [)"
    R"({"name": "uuid.data", "array_len": 16, "type": "uint8", "size": 1}]}])";

// Section names are printable ASCII: the registry sees to it.
std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + '"';
}
}  // namespace

VmDescription::VmDescription(const StreamIdentity& identity)
    : json_(fmt::format(
          R"({{"configuration": {{"vmsd_name": "configuration", "version": 1, "fields": [)"
          R"({{"name": "len", "type": "uint32", "size": 4}}, )"
          R"({{"name": "name", "type": "buffer", "size": {}}}]{}}}, )"
          R"("page_size": {}, "devices": [)",
          identity.machine_name.size(), identity.uuid ? kUuidPart : "", system::kPageSize)) {}

void VmDescription::begin_device(const SectionId& section) {
    json_ += fmt::format(R"({}{{"name": {}, "instance_id": {}, )", separator_,
                         quoted(section.idstr), section.instance_id);
    separator_ = ", ";
}

void VmDescription::add_plain(const SectionId& section, std::string_view members) {
    begin_device(section);
    json_ += members;
    json_ += '}';
}

void VmDescription::add_opaque(const SectionId& section, uint64_t body_bytes) {
    begin_device(section);
    json_ += fmt::format(
        R"("size": {0}, "fields": [{{"name": "data", "size": {0}, "type": "buffer"}}]}})",
        body_bytes);
}

std::string VmDescription::finish() && {
    json_ += "]}";
    while (!description_can_be_found(static_cast<uint32_t>(json_.size()))) json_ += ' ';
    return std::move(json_);
}

bool description_can_be_found(uint32_t length) {
    std::array<std::byte, sizeof(length)> field{};
    util::store_be32(field.data(), length);
    const auto last_nul = std::ranges::find(field.rbegin(), field.rend(), std::byte{0});
    return std::find(field.rbegin(), last_nul, std::byte{'{'}) == last_nul;
}

}  // namespace ferry::migration
