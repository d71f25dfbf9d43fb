// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/answers.h"

namespace ferry::monitor {

namespace {

constexpr auto kOptional = Presence::Optional;

Schema strings() {
    return Schema::array_of({JsonType::String});
}

Schema ram_answer() {
    std::vector<Member> members;
    for (const char* name :
         {"transferred", "remaining", "total", "duplicate", "normal", "normal-bytes",
          "dirty-pages-rate", "dirty-sync-count", "dirty-sync-missed-zero-copy",
          "postcopy-requests", "page-size", "multifd-bytes", "precopy-bytes", "downtime-bytes",
          "postcopy-bytes", "pages-per-second"}) {
        members.push_back({name, {JsonType::Integer}});
    }
    members.push_back({"mbps", {JsonType::Number}});
    return Schema::object(std::move(members));
}

Schema vfio_answer() {
    const Schema device = Schema::object({{"id", {JsonType::String}},
                                          {"state", {JsonType::String}},
                                          {"sent", {JsonType::Integer}},
                                          {"loaded", {JsonType::Integer}}});
    return Schema::object(
        {{"transferred", {JsonType::Integer}}, {"devices", Schema::array_of(device), kOptional}});
}

Schema pending_call() {
    return Schema::object({{"who", {JsonType::String}},
                           {"call", {JsonType::String}},
                           {"pending-ms", {JsonType::Integer}}});
}

Schema span() {
    return Schema::object({{"who", {JsonType::String}},
                           {"step", {JsonType::String}},
                           {"begin-ns", {JsonType::Integer}},
                           {"end-ns", {JsonType::Integer}},
                           {"bytes", {JsonType::Integer}}});
}

}  // namespace

Schema migration_statuses() {
    return Schema::enumeration({"none", "setup", "cancelling", "cancelled", "active",
                                "postcopy-active", "postcopy-paused", "postcopy-recover-setup",
                                "postcopy-recover", "completed", "failed", "colo", "pre-switchover",
                                "device", "wait-unplug"});
}

Schema run_states() {
    return Schema::enumeration({"debug", "inmigrate", "internal-error", "io-error", "paused",
                                "postmigrate", "prelaunch", "finish-migrate", "restore-vm",
                                "running", "save-vm", "shutdown", "suspended", "watchdog",
                                "guest-panicked", "colo"});
}

Schema version_answer() {
    const Schema level = Schema::object({{"major", {JsonType::Integer}},
                                         {"minor", {JsonType::Integer}},
                                         {"micro", {JsonType::Integer}}});
    return Schema::object({{"qemu", level}, {"package", {JsonType::String}}});
}

Schema machine_answer() {
    const Schema property = Schema::object({{"qom-type", {JsonType::String}},
                                            {"property", {JsonType::String}},
                                            {"value", {JsonType::String}}});
    return Schema::object(
        {{"name", {JsonType::String}},
         {"alias", {JsonType::String}, kOptional},
         {"is-default", {JsonType::Bool}, kOptional},
         {"cpu-max", {JsonType::Integer}},
         {"hotpluggable-cpus", {JsonType::Bool}},
         {"numa-mem-supported", {JsonType::Bool}},
         {"deprecated", {JsonType::Bool}},
         {"acpi", {JsonType::Bool}},
         {"compat-props", Schema::array_of(property), kOptional, Stability::Unstable}});
}

Schema socket_address() {
    return Schema::one_of("type",
                          {{"inet", Schema::object({{"host", {JsonType::String}},
                                                    {"port", {JsonType::String}},
                                                    {"ipv4", {JsonType::Bool}, kOptional},
                                                    {"ipv6", {JsonType::Bool}, kOptional}})},
                           {"unix", Schema::object({{"path", {JsonType::String}},
                                                    {"abstract", {JsonType::Bool}, kOptional},
                                                    {"tight", {JsonType::Bool}, kOptional}})}});
}

Schema migration_answer() {
    const auto number = [](const char* name) {
        return Member{name, {JsonType::Integer}, kOptional};
    };
    return Schema::object({{"status", migration_statuses(), kOptional},
                           {"ram", ram_answer(), kOptional},
                           {"vfio", vfio_answer(), kOptional},
                           number("total-time"),
                           number("setup-time"),
                           number("expected-downtime"),
                           number("downtime"),
                           number("cpu-throttle-percentage"),
                           {"error-desc", {JsonType::String}, kOptional},
                           {"blocked-reasons", strings(), kOptional},
                           {"socket-address", Schema::array_of(socket_address()), kOptional},
                           {"x-pending-calls", Schema::array_of(pending_call()), kOptional},
                           {"x-timeline", Schema::array_of(span()), kOptional}});
}

Schema schema_entity() {
    const Schema type{JsonType::String};
    const Schema value = Schema::object({{"name", type}, {"features", strings(), kOptional}});
    const Schema member = Schema::object({{"name", type},
                                          {"type", type},
                                          {"default", {JsonType::Any}, kOptional},
                                          {"features", strings(), kOptional}});
    const Schema variant = Schema::object({{"case", type}, {"type", type}});
    const Schema alternative = Schema::object({{"type", type}});
    return Schema::one_of(
        "meta-type",
        {{"builtin", Schema::object({{"json-type", type}})},
         {"enum",
          Schema::object({{"members", Schema::array_of(value)},
                          {"values", strings(), Presence::Required, Stability::Deprecated}})},
         {"array", Schema::object({{"element-type", type}})},
         {"object", Schema::object({{"members", Schema::array_of(member)},
                                    {"tag", type, kOptional},
                                    {"variants", Schema::array_of(variant), kOptional}})},
         {"alternate", Schema::object({{"members", Schema::array_of(alternative)}})},
         {"command", Schema::object({{"arg-type", type},
                                     {"ret-type", type},
                                     {"allow-oob", {JsonType::Bool}, kOptional}})},
         {"event", Schema::object({{"arg-type", type}})}},
        {{"name", type}, {"features", strings(), kOptional}});
}

}  // namespace ferry::monitor
