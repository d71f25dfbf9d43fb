// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/qmp-server.h"

#include <chrono>
#include <utility>

namespace ferry::monitor {

namespace {

// The only place of the monitor that wants the time of day, which clients put into their logs.
Json timestamp() {
    using std::chrono::duration_cast;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto seconds = duration_cast<std::chrono::seconds>(now);
    const auto rest = duration_cast<std::chrono::microseconds>(now - seconds);
    return {{"seconds", seconds.count()}, {"microseconds", rest.count()}};
}

}  // namespace

QmpServer::QmpServer(system::MainLoop& loop, const CommandTable& commands, Json version)
    : loop_(loop), commands_(commands), version_(std::move(version)) {}

void QmpServer::add(std::unique_ptr<MonitorTransport> transport, Layout layout) {
    sessions_.push_back(
        std::make_unique<QmpSession>(commands_, fd_sets_, version_, std::move(transport), layout));
}

void QmpServer::abandon_waiting(const Error& why) {
    for (const auto& session : sessions_) session->abandon_waiting(why);
}

void QmpServer::emit_event(std::string_view name, Json data) {
    Json event = {{"event", name}, {"timestamp", timestamp()}};
    if (!data.is_null()) event["data"] = std::move(data);
    if (loop_.on_loop_thread()) return broadcast(event);
    loop_.post([this, weak = std::weak_ptr(alive_), event = std::move(event)] {
        if (!weak.expired()) broadcast(event);
    });
}

void QmpServer::broadcast(const Json& event) {
    for (const auto& session : sessions_) session->send_event(event);
}

}  // namespace ferry::monitor
