// SPDX-License-Identifier: BSD-2-Clause
// All QMP monitors of one VM: requests go to one table of commands, events go to all of them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/qmp-session.h"
#include "system/main-loop.h"

namespace ferry::monitor {

class QmpServer {
 public:
    // `commands` and `loop` outlive the server. `version`: query-version's answer.
    QmpServer(system::MainLoop& loop, const CommandTable& commands, Json version);
    FdSets& fd_sets() { return fd_sets_; }

    // Main loop thread.
    void add(std::unique_ptr<MonitorTransport> transport, Layout layout);
    void abandon_waiting(const Error& why);

    // Any thread; in order. An event without data has null.
    void emit_event(std::string_view name, Json data = nullptr);

 private:
    void broadcast(const Json& event);

    system::MainLoop& loop_;
    const CommandTable& commands_;
    Json version_;
    FdSets fd_sets_;
    std::vector<std::unique_ptr<QmpSession>> sessions_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ferry::monitor
