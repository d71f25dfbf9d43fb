// SPDX-License-Identifier: BSD-2-Clause
// The source's end of tcp: and unix:.
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <optional>

#include "migration/channel-fd.h"
#include "migration/channel-open.h"
#include "migration/channel-resolve.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// How long a connect() to a unix socket whose queue is full waits before it looks at `cancel`.
constexpr timeval kUnixConnectSlice = {.tv_sec = 0, .tv_usec = 100'000};

template <typename Value>
Result<> set_option(BorrowedFd socket, int level, int option, const Value& value) {
    MIG_CHECK(util::check_call(::setsockopt(socket.raw(), level, option, &value, sizeof(value)),
                               "setsockopt"));
    return {};
}

Error cancelled(std::string_view target) {
    return make_error(ErrorKind::Cancelled, "connecting to '{}' was cancelled", target);
}

// Waits for the outcome of a connect() under way: 0 or its errno. Cancelled when cancelled.
Result<int> await_connection(BorrowedFd socket, const util::EventFd& cancel,
                             std::string_view target) {
    pollfd fds[] = {{socket.raw(), POLLOUT, 0}, {cancel.fd().raw(), POLLIN, 0}};
    MIG_CHECK(util::poll_fds(fds, std::size(fds), -1));
    if (fds[1].revents != 0) return cancelled(target);
    int outcome = 0;
    socklen_t length = sizeof(outcome);
    MIG_CHECK(util::check_call(::getsockopt(socket.raw(), SOL_SOCKET, SO_ERROR, &outcome, &length),
                               "getsockopt"));
    return outcome;
}

Result<UniqueFd> connect_one(const SocketAddress& to, const TcpAddress& address,
                             const util::EventFd& cancel) {
    const std::string target = host_and_port(address);
    const auto failed = [&](int errnum) {
        return make_errno(errnum, "Failed to connect to '{}'", target);
    };
    auto made = util::check_call(
        ::socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    if (!made) return failed(made.error().errnum());
    UniqueFd socket(*made);
    if (address.keep_alive) MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_KEEPALIVE, 1));
    auto begun = util::check_call(::connect(socket.raw(), to.get(), to.length), "connect");
    if (begun) return socket;
    // Interrupted means the same here: it goes on without us.
    const int errnum = begun.error().errnum();
    if (errnum != EINPROGRESS && errnum != EINTR) return failed(errnum);
    MIG_TRY(const int outcome, await_connection(socket.borrow(), cancel, target));
    if (outcome != 0) return failed(outcome);
    return socket;
}

bool is_signalled(const util::EventFd& cancel) {
    pollfd fd{cancel.fd().raw(), POLLIN, 0};
    const auto ready = util::poll_fds(&fd, 1, 0);
    return ready && *ready == 1;
}

}  // namespace

Result<std::unique_ptr<MigrationChannel>> connect_tcp(const TcpAddress& address,
                                                      const util::EventFd& cancel) {
    MIG_TRY(const auto candidates, resolve(address, ResolveFor::Connect, cancel));
    std::optional<Error> first;
    for (const SocketAddress& to : candidates) {
        auto socket = connect_one(to, address, cancel);
        if (socket) return make_socket_channel(std::move(*socket), to_string(address));
        if (socket.error().kind() == ErrorKind::Cancelled) return std::move(socket).error();
        if (!first) {
            first = std::move(socket).error();
        } else if (socket.error().errnum() != first->errnum()) {
            first->attach_in_place(std::move(socket).error());
        }
    }
    return *first;  // resolve() finds at least one
}

// A unix connect() is done at once, except when the listener's queue is full: without blocking it
// fails then, and nothing tells when there is room. So it blocks, in slices.
Result<std::unique_ptr<MigrationChannel>> connect_unix(const UnixAddress& address,
                                                       const util::EventFd& cancel) {
    MIG_TRY(const SocketAddress to, unix_socket_address(address));
    MIG_TRY(const int raw,
            util::check_call(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    UniqueFd socket(raw);
    MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_SNDTIMEO, kUnixConnectSlice));
    for (;;) {
        if (is_signalled(cancel)) return cancelled(address.path);
        auto connected = util::check_call(::connect(socket.raw(), to.get(), to.length), "connect");
        if (connected) break;
        const int errnum = connected.error().errnum();
        if (errnum != EAGAIN && errnum != EINTR) {
            return make_errno(errnum, "Failed to connect to '{}'", address.path);
        }
    }
    return make_socket_channel(std::move(socket), to_string(address));
}

}  // namespace ferry::migration
