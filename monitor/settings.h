// SPDX-License-Identifier: BSD-2-Clause
// All migration parameters that QMP knows, also those of features which do not exist here: these
// are shown with their defaults and refuse any other value.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "migration/capabilities.h"
#include "monitor/json.h"
#include "monitor/schema.h"

namespace ferry::monitor {

// How people write and read it in HMP.
enum class HmpForm : uint8_t {
    Number,     // plain
    Bytes,      // suffixes k, M, G, ... allowed
    Mebibytes,  // the same, MiB without a suffix
    OnOff,
    Text,
    Quoted,  // text, shown in single quotes
    Hidden,  // can be set, is not shown
};

struct ParameterShape {
    std::string_view name;
    JsonType type;
    HmpForm form;
    std::variant<uint64_t, bool, std::string_view> default_value;
    std::string_view unit;  // shown behind the value
};

// In the order in which HMP shows them; those of ours only are last.
std::span<const ParameterShape> parameter_shapes();
const ParameterShape* find_parameter(std::string_view name);  // null if there is none

std::vector<Member> parameter_schema();  // of migrate-set-parameters
Json parameters_to_json(const migration::Parameters& parameters);
// `arguments` fits the schema. Nothing is changed on an Error.
Result<migration::Parameters> change_parameters(migration::Parameters parameters,
                                                const Json& arguments);

}  // namespace ferry::monitor
