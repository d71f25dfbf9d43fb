// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/settings.h"

#include <algorithm>
#include <array>
#include <bit>

#include "system/memory.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

constexpr uint64_t kMiB = 1024 * 1024;

using F = HmpForm;
using T = JsonType;
// Defaults are QEMU's; where migration::parameter_table() has the name, its value is shown.
constexpr std::array kShapes = {
    ParameterShape{"announce-initial", T::Uint64, F::Number, uint64_t{50}, " ms"},
    ParameterShape{"announce-max", T::Uint64, F::Number, uint64_t{550}, " ms"},
    ParameterShape{"announce-rounds", T::Uint64, F::Number, uint64_t{5}, ""},
    ParameterShape{"announce-step", T::Uint64, F::Number, uint64_t{100}, " ms"},
    ParameterShape{"throttle-trigger-threshold", T::Uint8, F::Number, uint64_t{50}, ""},
    ParameterShape{"cpu-throttle-initial", T::Uint8, F::Number, uint64_t{20}, ""},
    ParameterShape{"cpu-throttle-increment", T::Uint8, F::Number, uint64_t{10}, ""},
    ParameterShape{"cpu-throttle-tailslow", T::Bool, F::OnOff, false, ""},
    ParameterShape{"max-cpu-throttle", T::Uint8, F::Number, uint64_t{99}, ""},
    ParameterShape{"tls-creds", T::StringOrNull, F::Quoted, "", ""},
    ParameterShape{"tls-hostname", T::StringOrNull, F::Quoted, "", ""},
    ParameterShape{"max-bandwidth", T::Uint64, F::Mebibytes, 128 * kMiB, " bytes/second"},
    ParameterShape{"avail-switchover-bandwidth", T::Uint64, F::Mebibytes, uint64_t{0},
                   " bytes/second"},
    ParameterShape{"downtime-limit", T::Uint64, F::Number, uint64_t{300}, " ms"},
    ParameterShape{"x-checkpoint-delay", T::Uint32, F::Number, uint64_t{20000}, " ms"},
    ParameterShape{"multifd-channels", T::Uint8, F::Number, uint64_t{2}, ""},
    ParameterShape{"multifd-compression", T::Enum, F::Text, "none", ""},
    ParameterShape{"zero-page-detection", T::Enum, F::Text, "multifd", ""},
    ParameterShape{"xbzrle-cache-size", T::Uint64, F::Bytes, 64 * kMiB, " bytes"},
    ParameterShape{"max-postcopy-bandwidth", T::Uint64, F::Bytes, uint64_t{0}, ""},
    ParameterShape{"tls-authz", T::StringOrNull, F::Quoted, "", ""},
    ParameterShape{"x-vcpu-dirty-limit-period", T::Uint64, F::Number, uint64_t{1000}, " ms"},
    ParameterShape{"vcpu-dirty-limit", T::Uint64, F::Number, uint64_t{1}, " MB/s"},
    ParameterShape{"mode", T::Enum, F::Text, "normal", ""},
    ParameterShape{"direct-io", T::Bool, F::OnOff, false, ""},
    ParameterShape{"multifd-zlib-level", T::Uint8, F::Hidden, uint64_t{1}, ""},
    ParameterShape{"multifd-qatzip-level", T::Uint8, F::Hidden, uint64_t{1}, ""},
    ParameterShape{"multifd-zstd-level", T::Uint8, F::Hidden, uint64_t{1}, ""},
    ParameterShape{"x-peer-timeout", T::Uint64, F::Number, uint64_t{60'000}, " ms"},
};

// What QMP accepts for parameters of features that are not there. Out of range is told before "not
// supported": the value would be wrong anywhere.
struct Range {
    std::string_view name;
    uint64_t minimum;
    uint64_t maximum;
    uint64_t told_minimum;  // QMP's text is off by one in places
};
constexpr std::array kRanges = {
    Range{"announce-initial", 0, 100'000, 0}, Range{"announce-max", 0, 100'000, 0},
    Range{"announce-rounds", 0, 1'000, 0},    Range{"announce-step", 1, 10'000, 0},
    Range{"multifd-qatzip-level", 1, 9, 1},   Range{"x-vcpu-dirty-limit-period", 1, 1'000, 1},
};

std::string with_underscores(std::string_view name) {
    std::string out(name);
    if (!name.starts_with("x-")) std::ranges::replace(out, '-', '_');
    return out;
}

Result<> check_range(const ParameterShape& shape, const Json& value) {
    if (!value.is_number()) return {};
    const uint64_t number = to_uint64(value);
    const std::string name = with_underscores(shape.name);
    if (shape.name == "xbzrle-cache-size" &&
        (number < system::kPageSize || !std::has_single_bit(number))) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter '{}' expects a power of two no less than the target page size",
                          name);
    }
    if (shape.name == "vcpu-dirty-limit" && number < 1) {
        return make_error(ErrorKind::InvalidArgument, "Parameter '{}' must be greater than 1 MB/s",
                          name);
    }
    const auto range = std::ranges::find(kRanges, shape.name, &Range::name);
    if (range == kRanges.end() || (number >= range->minimum && number <= range->maximum)) return {};
    return make_error(ErrorKind::InvalidArgument,
                      "Parameter '{}' expects a value between {} and {}", name, range->told_minimum,
                      range->maximum);
}

// In the order of the numbers that stand for them.
std::vector<std::string> values_of(const ParameterShape& shape) {
    if (shape.name == "multifd-compression") return {"none", "zlib", "zstd"};
    if (shape.name == "zero-page-detection") return {"none", "legacy", "multifd"};
    return {"normal", "cpr-reboot", "cpr-transfer"};
}

Schema schema_of(const ParameterShape& shape) {
    if (shape.type != JsonType::Enum) return {shape.type};
    return Schema::enumeration(values_of(shape));
}

// `value` has the type that the schema asks for.
uint64_t number_of(const ParameterShape& shape, const Json& value) {
    if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
    if (!value.is_string()) return to_uint64(value);
    const auto values = values_of(shape);
    return static_cast<uint64_t>(std::ranges::find(values, value.get<std::string>()) -
                                 values.begin());
}

Json default_of(const ParameterShape& shape) {
    return std::visit([](const auto& value) { return Json(value); }, shape.default_value);
}

bool is_default(const ParameterShape& shape, const Json& value) {
    return value.is_null() ? default_of(shape) == "" : default_of(shape) == value;
}

const migration::ParameterInfo* find_core(std::string_view name) {
    const auto table = migration::parameter_table();
    const auto found = std::ranges::find(table, name, &migration::ParameterInfo::name);
    return found == table.end() ? nullptr : &*found;
}

}  // namespace

std::span<const ParameterShape> parameter_shapes() {
    return kShapes;
}

const ParameterShape* find_parameter(std::string_view name) {
    const auto found = std::ranges::find(kShapes, name, &ParameterShape::name);
    return found == kShapes.end() ? nullptr : &*found;
}

std::vector<Member> parameter_schema() {
    std::vector<Member> members;
    for (const ParameterShape& shape : kShapes) {
        members.push_back({std::string(shape.name), schema_of(shape), Presence::Optional});
    }
    return members;
}

Json parameters_to_json(const migration::Parameters& parameters) {
    Json out = Json::object();
    for (const ParameterShape& shape : kShapes) {
        const migration::ParameterInfo* core = find_core(shape.name);
        Json& value = out[std::string(shape.name)];
        if (core == nullptr) {
            value = default_of(shape);
        } else if (shape.type == JsonType::Bool) {
            value = parameters.*(core->value) != 0;
        } else if (shape.type == JsonType::Enum) {
            value = values_of(shape).at(parameters.*(core->value));
        } else {
            value = parameters.*(core->value);
        }
    }
    return out;
}

Result<migration::Parameters> change_parameters(migration::Parameters parameters,
                                                const Json& arguments) {
    for (const auto& entry : arguments.items()) {
        const ParameterShape* shape = find_parameter(entry.key());
        if (shape != nullptr && find_core(entry.key()) != nullptr) {
            MIG_CHECK(migration::set_parameter(parameters, entry.key(),
                                               number_of(*shape, entry.value())));
            continue;
        }
        if (shape != nullptr) MIG_CHECK(check_range(*shape, entry.value()));
        if (shape != nullptr && !is_default(*shape, entry.value())) {
            return make_error(ErrorKind::Unsupported,
                              "Parameter '{}' is not supported: it can only be {}", entry.key(),
                              to_text(default_of(*shape)));
        }
    }
    return parameters;
}

}  // namespace ferry::monitor
