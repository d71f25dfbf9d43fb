// SPDX-License-Identifier: BSD-2-Clause
// The other end of a monitor's socket: what a management program does, seen from the test's thread.
#pragma once

#include <list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "monitor/json.h"
#include "util/unique-fd.h"

namespace ferry::test {

// A client end and a monitor end, stream unix sockets.
std::pair<UniqueFd, UniqueFd> socket_pair();

class QmpClient {
 public:
    explicit QmpClient(UniqueFd fd) : fd_(std::move(fd)) {}

    void send(std::string_view text);
    void send_with_fds(std::string_view text, std::span<const BorrowedFd> fds);
    // The next line without its CR LF; "<end>" at the end of the stream.
    std::string line();
    // Until `text` has come; all before and with it. "<end>" is appended at the end of the stream.
    std::string until(std::string_view text);
    monitor::Json next() { return monitor::Json::parse(line()); }
    // Reads the greeting, negotiates.
    void negotiate();
    // Sends one command and returns its reply; events that come first are kept for event().
    monitor::Json call(const monitor::Json& request);
    // The next event of that name; others that come first are kept.
    monitor::Json event(std::string_view name);
    // What call() and event() have met: "RESUME", "MIGRATION active", "reply", ...
    const std::vector<std::string>& history() const { return history_; }
    BorrowedFd fd() const { return fd_.borrow(); }
    void close() { fd_.reset(); }

 private:
    bool fill();
    // The next message, noted in the history; null at the end of the stream.
    monitor::Json note_next();

    UniqueFd fd_;
    std::string input_;
    std::list<monitor::Json> events_;
    std::vector<std::string> history_;
};

}  // namespace ferry::test
