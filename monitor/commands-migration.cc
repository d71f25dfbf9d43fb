// SPDX-License-Identifier: BSD-2-Clause
// migrate and its kin. What may happen when is decided by migration::Migration; here arguments
// become calls and outcomes become replies.
#include <filesystem>
#include <fstream>
#include <string>

#include "monitor/answers.h"
#include "monitor/commands.h"
#include "monitor/migration-json.h"
#include "util/try.h"

namespace ferry::monitor {

using migration::ExitOnError;
using migration::MigrationStatus;

namespace {

constexpr auto kOptional = Presence::Optional;

// Status events come from the loop's queue; the reply to what caused them stands behind them.
void finish_after_events(VmControl& vm, Reply reply, Result<> result) {
    vm.loop().post([reply = std::move(reply), result = std::move(result)]() mutable {
        std::move(reply).finish(result);
    });
}

void migrate(VmControl& vm, const Invocation& call, Reply reply) {
    auto address = address_from_arguments(call.arguments);
    if (!address) return std::move(reply).fail(address.error());
    if (bool_or(call.arguments, "resume", false)) {
        // Only a paused postcopy can be resumed, and there is no postcopy.
        return std::move(reply).fail(
            make_error(ErrorKind::InvalidState, "Cannot resume if there is no paused migration"));
    }
    if (!migration::opens_at_once(*address)) {
        // Must not wait for the connection: its failure shows in query-migrate.
        auto started = vm.migration().migrate(*address, call.fds, nullptr);
        return finish_after_events(vm, std::move(reply), std::move(started));
    }
    // Either the refusal or the opening answers, never both.
    auto shared = std::make_shared<Reply>(std::move(reply));
    auto started = vm.migration().migrate(*address, call.fds, [&vm, shared](Result<> opened) {
        finish_after_events(vm, std::move(*shared), std::move(opened));
    });
    if (!started) std::move(*shared).fail(started.error());
}

void migrate_incoming(VmControl& vm, const Invocation& call, Reply reply) {
    auto address = address_from_arguments(call.arguments, ChannelRule::OnlyMain);
    if (!address) return std::move(reply).fail(address.error());
    const ExitOnError exit =
        bool_or(call.arguments, "exit-on-error", true) ? ExitOnError::Yes : ExitOnError::No;
    finish_after_events(vm, std::move(reply),
                        vm.migration().migrate_incoming(*address, call.fds, exit));
}

void migrate_continue(VmControl& vm, const Invocation& call, Reply reply) {
    auto state = migration::status_from_name(call.arguments["state"].get<std::string>());
    // A status that no migration of ours has is never the present one.
    finish_after_events(vm, std::move(reply),
                        vm.migration().migrate_continue(state ? *state : MigrationStatus::None));
}

Json query_migrate(VmControl& vm) {
    const util::Env& env = vm.env();
    return to_json({.info = vm.migration().query(),
                    .blocked_reasons = vm.migration().blockers().reasons(),
                    .vfio_devices = vm.vfio_devices(),
                    .pending_calls = env.activity.snapshot(),
                    .now = env.activity.now(),
                    .timeline = env.timeline.snapshot()});
}

// The threads of an outgoing migration, by the names that the kernel knows them by.
Json source_threads() {
    constexpr std::string_view kSource = "mig/src/";
    Json list = Json::array();
    std::error_code ignored;  // one that ends meanwhile is none any more
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
        std::ifstream file(task.path() / "comm");
        std::string name;
        if (!std::getline(file, name) || !name.starts_with(kSource)) continue;
        list.push_back({{"name", name}, {"thread-id", std::stoi(task.path().filename())}});
    }
    return list;
}

// Announcing tells a network where the VM's cards are now. This machine has no card.
void add_announce_command(CommandTable& table) {
    table.add({"announce-self",
               {{"initial", {JsonType::Integer}},
                {"max", {JsonType::Integer}},
                {"rounds", {JsonType::Integer}},
                {"step", {JsonType::Integer}},
                {"interfaces", Schema::array_of({JsonType::String}), kOptional},
                {"id", {JsonType::String}, kOptional}},
               [](const Invocation&, Reply reply) { std::move(reply).ok(); }});
}

}  // namespace

void add_migration_commands(CommandTable& table, VmControl& vm) {
    std::vector<Member> outgoing = address_schema();
    outgoing.push_back({"resume", {JsonType::Bool}, kOptional});
    outgoing.push_back({"detach", {JsonType::Bool}, kOptional});  // as ever: ignored
    table.add({"migrate", std::move(outgoing), [&vm](const Invocation& call, Reply reply) {
                   migrate(vm, call, std::move(reply));
               }});
    std::vector<Member> incoming = address_schema();
    incoming.push_back({"exit-on-error", {JsonType::Bool}, kOptional});
    table.add({"migrate-incoming", std::move(incoming), [&vm](const Invocation& call, Reply reply) {
                   migrate_incoming(vm, call, std::move(reply));
               }});
    table.add({"migrate_cancel",
               {},
               [&vm](const Invocation&, Reply reply) {
                   vm.migration().migrate_cancel();
                   finish_after_events(vm, std::move(reply), {});
               },
               Timing::WhenRead});
    table.add({"migrate-continue",
               {{"state", migration_statuses()}},
               [&vm](const Invocation& call, Reply reply) {
                   migrate_continue(vm, call, std::move(reply));
               }});
    add_announce_command(table);
    table.add(
        {.name = "query-migrationthreads",
         .arguments = {},
         .handler = [](const Invocation&, Reply reply) { std::move(reply).ok(source_threads()); },
         .returns = Schema::array_of(
             Schema::object({{"name", {JsonType::String}}, {"thread-id", {JsonType::Integer}}})),
         .stability = Stability::Deprecated});
    table.add({.name = "query-migrate",
               .arguments = {},
               .handler = [&vm](const Invocation&,
                                Reply reply) { std::move(reply).ok(query_migrate(vm)); },
               .returns = migration_answer()});
}

// There is no postcopy: these are what they are in any VM that is not in that phase.
void add_postcopy_commands(CommandTable& table) {
    const auto refuse = [&table](std::string name, std::vector<Member> arguments, OutOfBand band,
                                 std::string why) {
        table.add({.name = std::move(name),
                   .arguments = std::move(arguments),
                   .handler =
                       [why = std::move(why)](const Invocation&, Reply reply) {
                           std::move(reply).fail(make_error(ErrorKind::InvalidState, "{}", why));
                       },
                   .out_of_band = band});
    };
    refuse("migrate-start-postcopy", {}, OutOfBand::No,
           "Enable postcopy with migrate_set_capability before the start of migration");
    refuse("migrate-pause", {}, OutOfBand::Yes,
           "migrate-pause is currently only supported during postcopy-active or postcopy-recover "
           "state");
    refuse("migrate-recover", {{"uri", {JsonType::String}}}, OutOfBand::Yes,
           "Migrate recover can only be run when postcopy is paused.");
}

}  // namespace ferry::monitor
