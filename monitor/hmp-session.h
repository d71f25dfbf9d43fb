// SPDX-License-Identifier: BSD-2-Clause
// One interactive monitor for people: a prompt, a line in, text out. Lines are edited here, unless
// the transport does that already. Main loop thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "monitor/hmp.h"
#include "monitor/read-line.h"
#include "monitor/transport.h"

namespace ferry::monitor {

// Who echoes and edits what is typed.
enum class Editing : bool { BySession, ByTransport };

class HmpSession final : private MonitorUser {
 public:
    // `hmp` outlives the session.
    HmpSession(Hmp& hmp, FdSets& fd_sets, std::string greeting,
               std::unique_ptr<MonitorTransport> transport, Editing editing);
    ~HmpSession() override = default;

 private:
    void opened() override;
    void received(ConstBytes bytes, std::vector<UniqueFd> fds) override;
    void drained() override;
    void closed() override;

    void work();
    void run(const std::string& line);
    // Takes from what was received; nothing: none has been ended so far.
    std::optional<std::string> next_line();
    std::optional<std::string> next_edited_line();
    void print(const std::string& text);

    Hmp& hmp_;
    std::string greeting_;
    std::unique_ptr<MonitorTransport> transport_;
    MonitorFds fds_;
    bool working_ = false;  // work() is on the stack
    std::string input_;
    std::optional<ReadLine> editor_;
    enum class State : uint8_t { Ready, RunningCommand } state_ = State::Ready;
    std::shared_ptr<int> client_ = std::make_shared<int>(0);  // renewed with each client
};

}  // namespace ferry::monitor
