// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/migration-presets.h"

#include <fmt/format.h>

#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr std::string_view kSwitchoverStart = "send-switchover-start";
constexpr std::string_view kGlobalState = "store-global-state";
constexpr std::string_view kLegacyAck = "switchover-ack-legacy";

bool is_stream_option(std::string_view name) {
    return name == kSwitchoverStart || name == kGlobalState || name == kLegacyAck;
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
    (name == kGlobalState ? stream.global_state : stream.switchover_start) =
        on ? Sent::Yes : Sent::No;
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
        const std::string plain = name.starts_with("x-") ? name.substr(2) : name;
        if (const auto capability = migration::capability_from_name(plain)) {
            MIG_TRY(const bool on, parse_bool(value), "{}", context);
            capabilities.emplace_back(*capability, on);
            continue;
        }
        MIG_TRY(const uint64_t number, parse_size(value), "{}", context);
        if (!migration::set_parameter(parameters, name, number)) {
            MIG_CHECK(migration::set_parameter(parameters, plain, number), "{}", context);
        }
    }
    migration.set_stream_options(stream);
    MIG_CHECK(migration.set_capabilities(capabilities), "-global");
    return migration.set_parameters(parameters);
}

}  // namespace ferry::vmm
