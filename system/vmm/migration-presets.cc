// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/migration-presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "monitor/settings.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr std::string_view kSwitchoverStart = "send-switchover-start";
constexpr std::string_view kGlobalState = "store-global-state";
constexpr std::string_view kFlushPerSection = "multifd-flush-after-each-section";
constexpr std::string_view kLegacyAck = "switchover-ack-legacy";

// Parts of every stream that nothing here can read a stream without.
constexpr std::array<std::string_view, 2> kAlwaysSent = {"send-configuration",
                                                         "send-section-footer"};

bool is_always_sent(std::string_view name) {
    return std::ranges::find(kAlwaysSent, name) != kAlwaysSent.end();
}

bool is_stream_option(std::string_view name) {
    return name == kSwitchoverStart || name == kGlobalState || name == kLegacyAck ||
           name == kFlushPerSection || is_always_sent(name);
}

Result<> set_stream_option(migration::StreamOptions& stream, std::string_view name,
                           std::string_view value) {
    using Sent = migration::StreamOptions::Sent;
    MIG_TRY(const bool on, parse_bool(value));
    if (name == kLegacyAck) {
        // One message, sent by a destination that is ready: that is how it is done here.
        if (on) return {};
        return make_error(ErrorKind::Unsupported,
                          "the newer form of switchover-ack is not there; only on");
    }
    if (is_always_sent(name)) {
        if (on) return {};
        return make_error(ErrorKind::Unsupported, "streams without it are not there; only on");
    }
    if (name == kFlushPerSection) {
        using Barrier = migration::StreamOptions::Barrier;
        stream.multifd_barrier = on ? Barrier::PerSection : Barrier::PerRound;
        return {};
    }
    (name == kGlobalState ? stream.global_state : stream.switchover_start) =
        on ? Sent::Yes : Sent::No;
    return {};
}

using monitor::Json;

Result<Json> value_of(const monitor::ParameterShape& shape, const std::string& text) {
    using monitor::JsonType;
    switch (shape.type) {
        case JsonType::Bool: {
            MIG_TRY(const bool on, parse_bool(text));
            return Json(on);
        }
        case JsonType::Integer:
        case JsonType::Uint8:
        case JsonType::Uint16:
        case JsonType::Uint32:
        case JsonType::Uint64: {
            MIG_TRY(const uint64_t number, parse_size(text));
            return Json(number);
        }
        case JsonType::Any:
        case JsonType::Number:
        case JsonType::String:
        case JsonType::StringOrNull:
        case JsonType::Enum:
        case JsonType::Object:
        case JsonType::Array: return Json(text);
    }
    std::unreachable();
}

// By its own name, or with "x-" in front.
template <typename Find>
auto with_or_without_x(std::string_view name, Find find) {
    auto found = find(name);
    return !found && name.starts_with("x-") ? find(name.substr(2)) : found;
}

// As migrate-set-parameters would.
Result<> set_parameter(migration::Parameters& parameters, const monitor::ParameterShape& shape,
                       const std::string& text) {
    MIG_TRY(Json value, value_of(shape, text));
    const Json arguments = {{std::string(shape.name), std::move(value)}};
    MIG_CHECK(monitor::check_members(monitor::parameter_schema(), arguments, ""));
    MIG_TRY(parameters, monitor::change_parameters(parameters, arguments));
    return {};
}

}  // namespace

Result<> preset_migration(migration::Migration& migration, const MigrationPresets& presets) {
    std::vector<std::pair<migration::Capability, bool>> capabilities;
    migration::Parameters parameters = migration.parameters();
    migration::StreamOptions stream;
    for (const auto& [name, value] : presets) {
        const std::string context = fmt::format("-global migration.{}={}", name, value);
        if (is_stream_option(name)) {
            MIG_CHECK(set_stream_option(stream, name, value), "{}", context);
            continue;
        }
        if (const auto capability = with_or_without_x(name, migration::capability_from_name)) {
            MIG_TRY(const bool on, parse_bool(value), "{}", context);
            capabilities.emplace_back(*capability, on);
            continue;
        }
        const auto* const shape = with_or_without_x(name, monitor::find_parameter);
        if (shape == nullptr) {
            return make_error(ErrorKind::InvalidArgument,
                              "{}: there is no such parameter or capability", context);
        }
        MIG_CHECK(set_parameter(parameters, *shape, value), "{}", context);
    }
    migration.set_stream_options(stream);
    MIG_CHECK(migration.set_capabilities(capabilities), "-global");
    return migration.set_parameters(parameters);
}

}  // namespace ferry::vmm
