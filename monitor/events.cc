// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/events.h"

#include <fmt/format.h>

#include <utility>

#include "monitor/answers.h"

namespace ferry::monitor {

using migration::Capability;

namespace {

bool by_guest(ShutdownCause cause) {
    switch (cause) {
        case ShutdownCause::GuestShutdown:
        case ShutdownCause::GuestReset:
        case ShutdownCause::GuestPanic: return true;
        case ShutdownCause::HostError:
        case ShutdownCause::HostQmpQuit:
        case ShutdownCause::HostQmpSystemReset:
        case ShutdownCause::HostSignal: return false;
    }
    return false;
}

Json cause_data(ShutdownCause cause) {
    return {{"guest", by_guest(cause)}, {"reason", to_string(cause)}};
}

}  // namespace

std::string_view to_string(ShutdownCause cause) {
    switch (cause) {
        case ShutdownCause::HostError: return "host-error";
        case ShutdownCause::HostQmpQuit: return "host-qmp-quit";
        case ShutdownCause::HostQmpSystemReset: return "host-qmp-system-reset";
        case ShutdownCause::HostSignal: return "host-signal";
        case ShutdownCause::GuestShutdown: return "guest-shutdown";
        case ShutdownCause::GuestReset: return "guest-reset";
        case ShutdownCause::GuestPanic: return "guest-panic";
    }
    return "none";
}

std::vector<EventShape> event_shapes() {
    const Schema causes = Schema::enumeration(
        {"none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui",
         "guest-shutdown", "guest-reset", "guest-panic", "subsystem-reset", "snapshot-load"});
    const Schema states = Schema::enumeration(
        {"stop", "running", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p"});
    const std::vector<Member> cause{{"guest", {JsonType::Bool}}, {"reason", causes}};
    return {{"STOP", {}},
            {"RESUME", {}},
            {"SHUTDOWN", cause},
            {"RESET", cause},
            {"POWERDOWN", {}},
            {"SUSPEND", {}},
            {"WAKEUP", {}},
            {"MIGRATION", {{"status", migration_statuses()}}},
            {"MIGRATION_PASS", {{"pass", {JsonType::Integer}}}},
            {"DEVICE_DELETED",
             {{"device", {JsonType::String}, Presence::Optional}, {"path", {JsonType::String}}}},
            {"VFIO_MIGRATION",
             {{"device-id", {JsonType::String}},
              {"qom-path", {JsonType::String}},
              {"device-state", states}}}};
}

Events::Events(VmControl& vm, QmpServer& server)
    : server_(server),
      runstate_(vm.runstate().on_event([this](system::RunStateEvent event) {
          server_.emit_event(event == system::RunStateEvent::Stop ? "STOP" : "RESUME");
      })),
      status_(
          vm.migration().on_status([this, &vm](migration::Role, migration::MigrationStatus status) {
              if (!vm.migration().capabilities().has(Capability::Events)) return;
              server_.emit_event("MIGRATION", {{"status", to_string(status)}});
          })),
      pass_(vm.migration().on_pass([this, &vm](uint64_t pass) {
          if (!vm.migration().capabilities().has(Capability::Events)) return;
          server_.emit_event("MIGRATION_PASS", {{"pass", pass}});
      })) {}

void Events::shutdown(ShutdownCause cause) {
    server_.emit_event("SHUTDOWN", cause_data(cause));
}

void Events::reset(ShutdownCause cause) {
    server_.emit_event("RESET", cause_data(cause));
}

void Events::powerdown() {
    server_.emit_event("POWERDOWN");
}

void Events::suspend() {
    server_.emit_event("SUSPEND");
}

void Events::wakeup() {
    server_.emit_event("WAKEUP");
}

void Events::device_deleted(std::string_view id) {
    server_.emit_event("DEVICE_DELETED",
                       {{"device", id}, {"path", fmt::format("/machine/peripheral/{}", id)}});
}

void Events::vfio_migration(const std::string& id, const std::string& qom_path,
                            vfio::MigState state) {
    server_.emit_event(
        "VFIO_MIGRATION",
        {{"device-id", id}, {"qom-path", qom_path}, {"device-state", vfio::to_string(state)}});
}

}  // namespace ferry::monitor
