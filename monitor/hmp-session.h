// SPDX-License-Identifier: BSD-2-Clause
// One interactive monitor for people: a prompt, a line in, text out. Where lines can be edited, the
// transport does that. Main loop thread only.
#pragma once

#include <memory>
#include <string>

#include "monitor/hmp.h"
#include "monitor/transport.h"

namespace ferry::monitor {

inline constexpr size_t kMaxHmpLineBytes = 4096;

class HmpSession final : private MonitorUser {
 public:
    // `hmp` outlives the session.
    HmpSession(Hmp& hmp, FdSets& fd_sets, std::string greeting,
               std::unique_ptr<MonitorTransport> transport);
    ~HmpSession() override = default;

 private:
    void opened() override;
    void received(ConstBytes bytes, std::vector<UniqueFd> fds) override;
    void drained() override;
    void closed() override;

    void work();
    void print(const std::string& text);

    Hmp& hmp_;
    std::string greeting_;
    std::unique_ptr<MonitorTransport> transport_;
    MonitorFds fds_;
    std::string input_;
    enum class State : uint8_t { Ready, RunningCommand } state_ = State::Ready;
    std::shared_ptr<int> client_ = std::make_shared<int>(0);  // renewed with each client
};

}  // namespace ferry::monitor
