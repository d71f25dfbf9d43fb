// SPDX-License-Identifier: BSD-2-Clause
// How a monitor and its client exchange bytes: unix socket, TCP, stdio. Main loop thread only;
// nothing here blocks once a transport exists.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "system/main-loop.h"
#include "util/bytes.h"
#include "util/char-address.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::monitor {

// A client that lets so much output pile up is disconnected.
inline constexpr size_t kMaxOutputBytes = 8 * 1024 * 1024;
inline constexpr size_t kMaxPassedFds = 16;  // with one piece of input; more are closed

// Who uses a transport. Never destroys it from within a call.
class MonitorUser {
 public:
    virtual ~MonitorUser() = default;
    virtual void opened() = 0;  // a client is there
    virtual void received(ConstBytes bytes, std::vector<UniqueFd> fds) = 0;
    virtual void drained() = 0;  // all output is on its way
    virtual void closed() = 0;   // the client is gone; another may come
};

class MonitorTransport {
 public:
    virtual ~MonitorTransport() = default;  // disconnects
    // Once; opened() comes from the loop, at once or when somebody connects.
    virtual void start(MonitorUser& user) = 0;
    // Queued, and sent as the client reads. Dropped when nobody is there.
    virtual void send(std::string_view text) = 0;
    virtual size_t backlog_bytes() const = 0;
    enum class Reading : uint8_t { On, Off };
    virtual void set_reading(Reading reading) = 0;
    // A person's terminal, where lines can be edited: make_terminal_transport().
    enum class Kind : bool { Stream, Terminal };
    virtual Kind kind() const { return Kind::Stream; }
};

// A connected stream socket. Sockets pass file descriptors if they are unix sockets.
Result<std::unique_ptr<MonitorTransport>> make_connected_transport(system::MainLoop& loop,
                                                                   UniqueFd socket);
// A listening socket: one client at a time, the next one waits until it has left. `unix_path` is
// removed at the end unless empty.
Result<std::unique_ptr<MonitorTransport>> make_listening_transport(system::MainLoop& loop,
                                                                   UniqueFd listener,
                                                                   std::string unix_path);
// Descriptors 0 and 1. The process must ignore SIGPIPE.
Result<std::unique_ptr<MonitorTransport>> make_stdio_transport(system::MainLoop& loop);

// Unsupported for what a monitor can't be at: Null and File.
// May block (name resolution, connect, Wait::ForClient): before the loop runs.
Result<std::unique_ptr<MonitorTransport>> open_monitor_transport(system::MainLoop& loop,
                                                                 const util::CharAddress& address);

}  // namespace ferry::monitor
