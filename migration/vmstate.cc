// SPDX-License-Identifier: BSD-2-Clause
#include "migration/vmstate.h"

#include <algorithm>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

namespace detail {

void put_integer(SaveStream& out, uint64_t value, size_t size) {
    switch (size) {
        case sizeof(uint8_t): return out.u8(static_cast<uint8_t>(value));
        case sizeof(uint16_t): return out.be16(static_cast<uint16_t>(value));
        case sizeof(uint32_t): return out.be32(static_cast<uint32_t>(value));
        default: return out.be64(value);
    }
}

Result<uint64_t> get_integer(LoadStream& in, size_t size) {
    const auto widen = [](auto value) -> Result<uint64_t> {
        if (!value) return std::move(value).error();
        return uint64_t{*value};
    };
    switch (size) {
        case sizeof(uint8_t): return widen(in.u8());
        case sizeof(uint16_t): return widen(in.be16());
        case sizeof(uint32_t): return widen(in.be32());
        default: return in.be64();
    }
}

}  // namespace detail

namespace {

// The name of the subsection that follows, empty where the vmstate `parent` ends. Consumes nothing,
// and asks for no byte that might not come: what follows a vmstate may be short.
Result<std::string> peek_subsection(LoadStream& in, const std::string& parent) {
    constexpr size_t kHead = 2;  // element byte, length of the name
    MIG_TRY(ConstBytes head, in.peek(1));
    if (head.empty() || head[0] != std::byte{static_cast<uint8_t>(Element::Subsection)}) {
        return std::string();
    }
    MIG_TRY(head, in.peek(kHead));
    const size_t length = head.size() < kHead ? 0 : static_cast<size_t>(head[1]);
    if (length <= parent.size()) return std::string();
    MIG_TRY(head, in.peek(kHead + length));
    if (head.size() < kHead + length) return std::string();
    const std::string_view name = text_of(head.subspan(kHead, length));
    return std::string(name.starts_with(parent) ? name : "");
}

}  // namespace

Result<> VMStateDescription::check_version(uint32_t version) const {
    if (version > version_ || version < minimum_version_) {
        return make_error(ErrorKind::Protocol, "{}: version {} is not supported, only {} to {}",
                          name_, version, minimum_version_, version_);
    }
    return {};
}

Result<> VMStateDescription::for_each_subsection(LoadStream& in, const ReadSubsection& read) const {
    std::vector<bool> seen(subsections_.size());
    for (;;) {
        MIG_TRY(const std::string name, peek_subsection(in, name_));
        if (name.empty()) return {};
        const auto found = std::ranges::find_if(
            subsections_, [&](const Subsection& s) { return s.description.name() == name; });
        if (found == subsections_.end()) {
            return make_error(ErrorKind::Protocol, "{}: unknown subsection '{}'", name_, name);
        }
        const auto index = static_cast<size_t>(found - subsections_.begin());
        if (seen[index]) {
            return make_error(ErrorKind::Protocol, "{}: subsection '{}' comes twice", name_, name);
        }
        seen[index] = true;
        MIG_CHECK(in.skip(2 + name.size()));
        MIG_TRY(const uint32_t version, in.be32(), "subsection {}", name);
        MIG_CHECK(read(*found, version));
    }
}

void VMStateDescription::save(void* object, SaveStream& out) const {
    if (pre_save_) pre_save_(object);
    for (const Field& field : fields_) {
        if (field.since <= version_) field.put(object, out);
    }
    for (const Subsection& subsection : subsections_) {
        if (!subsection.needed(object)) continue;
        out.u8(static_cast<uint8_t>(Element::Subsection));
        out.str8(subsection.description.name());
        out.be32(subsection.description.version());
        subsection.description.save(object, out);
    }
}

Result<> VMStateDescription::load(void* object, LoadStream& in, uint32_t version) const {
    MIG_CHECK(check_version(version));
    for (const Field& field : fields_) {
        if (field.since > version) continue;
        MIG_CHECK(field.get(object, in), "{}: field {}", name_, field.name);
    }
    MIG_CHECK(for_each_subsection(in, [&](const Subsection& subsection, uint32_t its_version) {
        return subsection.description.load(object, in, its_version);
    }));
    if (post_load_) MIG_CHECK(post_load_(object, version), "{}", name_);
    return {};
}

Result<> VMStateDescription::collect(LoadStream& in, uint32_t version,
                                     std::vector<std::byte>& body) const {
    MIG_CHECK(check_version(version));
    for (const Field& field : fields_) {
        if (field.since > version) continue;
        const size_t at = body.size();
        body.resize(at + field.size * field.array_len);
        MIG_CHECK(in.bytes(MutBytes(body).subspan(at)), "{}: field {}", name_, field.name);
    }
    return for_each_subsection(
        in, [&](const Subsection& subsection, uint32_t its_version) -> Result<> {
            util::WireWriter header;
            header.u8(static_cast<uint8_t>(Element::Subsection))
                .str8(subsection.description.name())
                .be32(its_version);
            body.insert(body.end(), header.view().begin(), header.view().end());
            return subsection.description.collect(in, its_version, body);
        });
}

// --- Description

std::string VMStateDescription::describe_field(const Field& field, size_t index) const {
    const auto same_name = [&](const Field& other) { return other.name == field.name; };
    const auto here = fields_.begin() + static_cast<ptrdiff_t>(index);
    std::string name = field.name;
    if (std::ranges::count_if(fields_, same_name) > 1) {
        name += fmt::format("[{}]", std::count_if(fields_.begin(), here, same_name));
    }
    const std::string array =
        field.array_len > 1 ? fmt::format(", \"array_len\": {}", field.array_len) : "";
    return fmt::format(R"({{"name": "{}"{}, "type": "{}", "size": {}}})", name, array, field.type,
                       field.size);
}

std::string VMStateDescription::describe(const void* object) const {
    std::string fields;
    for (size_t i = 0; i < fields_.size(); ++i) {
        if (fields_[i].since > version_) continue;
        if (!fields.empty()) fields += ", ";
        fields += describe_field(fields_[i], i);
    }
    std::string subsections;
    for (const Subsection& subsection : subsections_) {
        if (!subsection.needed(object)) continue;
        if (!subsections.empty()) subsections += ", ";
        subsections += "{" + subsection.description.describe(object) + "}";
    }
    std::string out =
        fmt::format(R"("vmsd_name": "{}", "version": {}, "fields": [{}])", name_, version_, fields);
    if (!subsections.empty()) out += fmt::format(R"(, "subsections": [{}])", subsections);
    return out;
}

}  // namespace ferry::migration
