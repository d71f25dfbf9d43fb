// SPDX-License-Identifier: BSD-2-Clause
// Commands that start, stop and end things.
#include "monitor/answers.h"
#include "monitor/commands.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

void query_status(VmControl& vm, Reply reply) {
    const system::RunState state = vm.runstate().state();
    std::move(reply).ok(
        {{"running", state == system::RunState::Running}, {"status", system::to_string(state)}});
}

void quit(const CommandContext& context, Reply reply) {
    context.events.shutdown(ShutdownCause::HostQmpQuit);
    std::move(reply).ok();
    // What still waits, here and on other monitors, will never be done.
    context.server.abandon_waiting(make_error(ErrorKind::Cancelled, "the process is ending"));
    context.vm.quit();
}

void system_reset(const CommandContext& context, Reply reply) {
    if (context.vm.reset_shuts_down()) {
        std::move(reply).ok();
        return context.vm.shut_down(ShutdownCause::HostQmpSystemReset);
    }
    context.run.reset([context, reply = std::move(reply)](Result<> result) mutable {
        if (result) context.events.reset(ShutdownCause::HostQmpSystemReset);
        std::move(reply).finish(result);
    });
}

void device_del(const CommandContext& context, const std::string& id, Reply reply) {
    if (context.vm.migration().in_progress()) {
        return std::move(reply).fail(
            make_error(ErrorKind::InvalidState, "device_del not allowed while migrating"));
    }
    context.vm.device_del(id, [context, id, reply = std::move(reply)](Result<> result) mutable {
        if (result) {
            context.events.device_deleted(id);
            return std::move(reply).ok();
        }
        const bool missing = result.error().kind() == ErrorKind::InvalidArgument;
        std::move(reply).fail(missing ? ErrorClass::DeviceNotFound : ErrorClass::GenericError,
                              result.error());
    });
}

}  // namespace

void add_run_commands(CommandTable& table, CommandContext context) {
    table.add(
        {.name = "query-status",
         .arguments = {},
         .handler = [context](const Invocation&,
                              Reply reply) { query_status(context.vm, std::move(reply)); },
         .returns = Schema::object({{"running", {JsonType::Bool}}, {"status", run_states()}})});
    table.add({"stop", {}, [context](const Invocation&, Reply reply) {
                   context.run.stop(std::move(reply).as_done());
               }});
    table.add({"cont", {}, [context](const Invocation&, Reply reply) {
                   context.run.cont(std::move(reply).as_done());
               }});
    table.add({"quit",
               {},
               [context](const Invocation&, Reply reply) { quit(context, std::move(reply)); },
               Timing::WhenRead});
    table.add({"system_reset", {}, [context](const Invocation&, Reply reply) {
                   system_reset(context, std::move(reply));
               }});
    table.add({"system_powerdown", {}, [context](const Invocation&, Reply reply) {
                   const Result<> pressed = context.vm.powerdown();
                   if (pressed) context.events.powerdown();
                   std::move(reply).finish(pressed);
               }});
    table.add({"system_wakeup", {}, [context](const Invocation&, Reply reply) {
                   std::move(reply).finish(context.vm.wakeup());
               }});
    table.add({"device_del",
               {{"id", {JsonType::String}}},
               [context](const Invocation& call, Reply reply) {
                   device_del(context, call.arguments["id"].get<std::string>(), std::move(reply));
               }});
}

}  // namespace ferry::monitor
