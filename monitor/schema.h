// SPDX-License-Identifier: BSD-2-Clause
// What the arguments of a command must look like. Checked in one place, before the command runs;
// the texts are the ones QMP clients know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/json.h"
#include "util/result.h"

namespace ferry::monitor {

enum class JsonType : uint8_t {
    Any,
    String,
    StringOrNull,
    Bool,
    Integer,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Number,  // with or without a fraction
    Enum,
    Object,
    Array,
};

enum class Presence : uint8_t { Required, Optional };
// Told to clients by query-qmp-schema. What is named "x-..." is unstable without further ado.
enum class Stability : uint8_t { Stable, Unstable, Deprecated };

struct Member;
struct Variant;

// The shape of one value. Uint64 takes negative numbers as two's complement, as QMP always did.
struct Schema {
    JsonType type = JsonType::Any;
    std::vector<std::string> values;      // Enum
    std::vector<std::string> deprecated;  // Enum: of the values
    std::vector<Member> members;          // Object; without any: the command looks into it itself
    // Object: the member `tag` decides which further members there are. Told, not checked.
    std::string tag;
    std::vector<Variant> variants;
    std::vector<Schema> element;  // Array: exactly one

    static Schema enumeration(std::vector<std::string> values);
    static Schema object(std::vector<Member> members);
    static Schema one_of(std::string tag, std::vector<Variant> variants);
    static Schema one_of(std::string tag, std::vector<Variant> variants,
                         std::vector<Member> common);
    static Schema array_of(Schema element);
};

struct Member {
    std::string name;
    Schema schema;
    Presence presence = Presence::Required;
    Stability stability = Stability::Stable;
};

// The further members of an object whose tag has the value.
struct Variant {
    std::string value;
    Schema object;
};

// Members that the schema does not name: Passed where the command itself knows which there are,
// because that depends on another member.
enum class Beyond : uint8_t { Refused, Passed };

// First what is wrong with the members in their order, then members that nobody asked for. `path`
// stands before the names of nested members ("capabilities[0]"), empty at the top.
Result<> check_members(const std::vector<Member>& members, const Json& object,
                       const std::string& path, Beyond beyond = Beyond::Refused);

// For values that passed the check.
uint64_t to_uint64(const Json& value);
bool bool_or(const Json& arguments, const char* name, bool fallback);

}  // namespace ferry::monitor
