// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/monitor.h"

#include <fmt/format.h>

#include "monitor/commands.h"
#include "monitor/transport-terminal.h"

namespace ferry::monitor {

Monitor::Monitor(VmControl& vm)
    : vm_(vm),
      run_(vm),
      hmp_(commands_, *this),
      server_(vm.loop(), commands_, version_info()),
      events_(vm, server_) {
    add_run_commands(commands_, {vm_, run_, server_, events_});
    add_info_commands(commands_, vm_);
    add_fd_commands(commands_);
    add_migration_commands(commands_, vm_);
    add_setting_commands(commands_, vm_);
    add_postcopy_commands(commands_);
    add_schema_command(commands_);
    add_hmp_command(commands_, hmp_, vm_);
}

Monitor::~Monitor() = default;

void Monitor::add_qmp(std::unique_ptr<MonitorTransport> transport, Layout layout) {
    server_.add(std::move(transport), layout);
}

void Monitor::add_hmp(std::unique_ptr<MonitorTransport> transport) {
    Editing editing = Editing::BySession;
    if (transport->kind() == MonitorTransport::Kind::Terminal) {
        transport.reset();  // gives the terminal back before another takes it
        auto terminal = make_terminal_transport(
            vm_.loop(), [this](std::string_view line) { return hmp_.complete(line); });
        if (!terminal) {
            vm_.env().log.log(util::LogLevel::Warning, terminal.error().message());
            return;
        }
        transport = std::move(*terminal);
        editing = Editing::ByTransport;
    }
    const Json version = version_info();
    hmp_sessions_.push_back(
        std::make_unique<HmpSession>(hmp_, server_.fd_sets(),
                                     fmt::format("Ferry monitor ({}); \"help\" lists the commands",
                                                 version["package"].get<std::string>()),
                                     std::move(transport), editing));
}

void Monitor::when_migration_ended(std::move_only_function<void()> ended) {
    if (!vm_.migration().in_progress()) return ended();  // it did not last long
    const auto wait = waits_.insert(waits_.end(), MigrationWait{std::move(ended), {}});
    wait->registration = vm_.migration().on_event([this, weak = std::weak_ptr(alive_), wait](
                                                      migration::MigrationEvent event) -> Result<> {
        if (event == migration::MigrationEvent::Setup || !wait->ended) return {};
        // Not from within the event: answering takes the listener away.
        vm_.loop().post([this, weak, wait, call = std::exchange(wait->ended, nullptr)]() mutable {
            if (weak.expired()) return;
            waits_.erase(wait);
            call();
        });
        return {};
    });
}

}  // namespace ferry::monitor
