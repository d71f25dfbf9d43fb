// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/schema.h"

#include <algorithm>
#include <limits>

#include "util/try.h"

namespace ferry::monitor {

namespace {

struct Place {
    std::string full;  // "capabilities[0].state", for most texts
    std::string leaf;  // "state"; "null" in a list
};

Error wrong_type(const Place& place, std::string_view expected) {
    return make_error(ErrorKind::InvalidArgument, "Invalid parameter type for '{}', expected: {}",
                      place.full, expected);
}

Result<> check_unsigned(const Json& value, const Place& place, uint64_t maximum,
                        std::string_view type) {
    if (!value.is_number()) return wrong_type(place, "integer");
    const bool fits = value.is_number_unsigned()  ? value.get<uint64_t>() <= maximum
                      : value.is_number_integer() ? maximum == std::numeric_limits<uint64_t>::max()
                                                  : false;
    if (!fits) {
        return make_error(ErrorKind::InvalidArgument, "Parameter '{}' expects {}", place.leaf,
                          type);
    }
    return {};
}

Result<> check_integer(const Json& value, const Place& place) {
    if (!value.is_number()) return wrong_type(place, "integer");
    const bool too_large =
        value.is_number_unsigned() &&
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!value.is_number_integer() || too_large) return wrong_type(place, "integer");
    return {};
}

Result<> check_value(const Schema& schema, const Json& value, const Place& place) {
    switch (schema.type) {
        case JsonType::Any: return {};
        case JsonType::String:
            if (!value.is_string()) return wrong_type(place, "string");
            return {};
        case JsonType::StringOrNull:
            if (!value.is_string() && !value.is_null()) return wrong_type(place, "StrOrNull");
            return {};
        case JsonType::Bool:
            if (!value.is_boolean()) return wrong_type(place, "boolean");
            return {};
        case JsonType::Integer: return check_integer(value, place);
        case JsonType::Uint8:
            return check_unsigned(value, place, std::numeric_limits<uint8_t>::max(), "uint8_t");
        case JsonType::Uint16:
            return check_unsigned(value, place, std::numeric_limits<uint16_t>::max(), "uint16_t");
        case JsonType::Uint32:
            return check_unsigned(value, place, std::numeric_limits<uint32_t>::max(), "uint32_t");
        case JsonType::Uint64:
            return check_unsigned(value, place, std::numeric_limits<uint64_t>::max(), "uint64");
        case JsonType::Number:
            if (!value.is_number()) return wrong_type(place, "number");
            return {};
        case JsonType::Enum:
            if (!value.is_string()) return wrong_type(place, "string");
            if (std::ranges::find(schema.values, value.get_ref<const std::string&>()) ==
                schema.values.end()) {
                return make_error(ErrorKind::InvalidArgument,
                                  "Parameter '{}' does not accept value '{}'", place.leaf,
                                  value.get_ref<const std::string&>());
            }
            return {};
        case JsonType::Object:
            if (!value.is_object()) return wrong_type(place, "object");
            if (schema.members.empty()) return {};
            return check_members(schema.members, value, place.full);
        case JsonType::Array:
            if (!value.is_array()) return wrong_type(place, "array");
            for (size_t i = 0; i < value.size(); ++i) {
                MIG_CHECK(check_value(schema.element.front(), value[i],
                                      {fmt::format("{}[{}]", place.full, i), "null"}));
            }
            return {};
    }
    return {};
}

}  // namespace

Schema Schema::enumeration(std::vector<std::string> values) {
    Schema schema{JsonType::Enum};
    schema.values = std::move(values);
    return schema;
}

Schema Schema::object(std::vector<Member> members) {
    Schema schema{JsonType::Object};
    schema.members = std::move(members);
    return schema;
}

Schema Schema::one_of(std::string tag, std::vector<Variant> variants) {
    return one_of(std::move(tag), std::move(variants), {});
}

Schema Schema::one_of(std::string tag, std::vector<Variant> variants, std::vector<Member> common) {
    Schema schema = object(std::move(common));
    schema.tag = std::move(tag);
    schema.variants = std::move(variants);
    return schema;
}

Schema Schema::array_of(Schema element) {
    Schema schema{JsonType::Array};
    schema.element.push_back(std::move(element));
    return schema;
}

Result<> check_members(const std::vector<Member>& members, const Json& object,
                       const std::string& path, Beyond beyond) {
    const auto full = [&path](std::string_view name) {
        return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
    };
    for (const Member& member : members) {
        const auto found = object.find(member.name);
        if (found != object.end()) {
            MIG_CHECK(check_value(member.schema, *found, {full(member.name), member.name}));
        } else if (member.presence == Presence::Required) {
            return make_error(ErrorKind::InvalidArgument, "Parameter '{}' is missing",
                              full(member.name));
        }
    }
    if (beyond == Beyond::Passed) return {};
    for (const auto& entry : object.items()) {
        const bool known = std::ranges::any_of(
            members, [&](const Member& member) { return member.name == entry.key(); });
        if (!known) {
            return make_error(ErrorKind::InvalidArgument, "Parameter '{}' is unexpected",
                              full(entry.key()));
        }
    }
    return {};
}

uint64_t to_uint64(const Json& value) {
    return value.is_number_unsigned() ? value.get<uint64_t>()
                                      : static_cast<uint64_t>(value.get<int64_t>());
}

bool bool_or(const Json& arguments, const char* name, bool fallback) {
    const auto found = arguments.find(name);
    return found == arguments.end() ? fallback : found->get<bool>();
}

}  // namespace ferry::monitor
