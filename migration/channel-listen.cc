// SPDX-License-Identifier: BSD-2-Clause
#include "migration/channel-listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "migration/channel-resolve.h"
#include "util/socket-path.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// All channels of one source may arrive before the main loop looks: 255 and the main one.
constexpr int kBacklog = 512;
// A free port for one address may be taken for another one of the same host.
constexpr int kFreePortAttempts = 8;

Result<UniqueFd> make_socket(int family, int type) {
    MIG_TRY(const int raw,
            util::check_call(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
    return UniqueFd(raw);
}

Result<> set_option(BorrowedFd socket, int level, int option, int value) {
    MIG_CHECK(util::check_call(::setsockopt(socket.raw(), level, option, &value, sizeof(value)),
                               "setsockopt"));
    return {};
}

Result<> bind_and_listen(BorrowedFd socket, const SocketAddress& address) {
    MIG_CHECK(util::check_call(::bind(socket.raw(), address.get(), address.length), "bind"));
    MIG_CHECK(util::check_call(::listen(socket.raw(), kBacklog), "listen"));
    return {};
}

// --- tcp:

enum class KeepAlive : uint8_t { No, Yes };

Result<UniqueFd> listen_on(const SocketAddress& address, KeepAlive keep_alive) {
    MIG_TRY(UniqueFd socket, make_socket(address.family(), SOCK_STREAM));
    MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_REUSEADDR, 1));
    // The other family has a socket of its own.
    if (address.family() == AF_INET6) {
        MIG_CHECK(set_option(socket.borrow(), IPPROTO_IPV6, IPV6_V6ONLY, 1));
    }
    if (keep_alive == KeepAlive::Yes) {  // accepted sockets inherit it
        MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_KEEPALIVE, 1));
    }
    MIG_CHECK(bind_and_listen(socket.borrow(), address));
    return socket;
}

Result<SocketAddress> bound_address(BorrowedFd socket) {
    SocketAddress bound;
    bound.length = sizeof(bound.storage);
    MIG_CHECK(
        util::check_call(::getsockname(socket.raw(), bound.get(), &bound.length), "getsockname"));
    return bound;
}

// The host has no such family, or not this address: the others will do.
bool is_unavailable(const Error& error) {
    return error.errnum() == EADDRNOTAVAIL || error.errnum() == EAFNOSUPPORT;
}

// Listens on all of them, with one port. Port 0: the first socket's choice counts for the rest.
Result<std::vector<UniqueFd>> listen_on_all(std::vector<SocketAddress> addresses, uint16_t port,
                                            KeepAlive keep_alive) {
    std::vector<UniqueFd> sockets;
    std::optional<Error> unavailable;
    for (SocketAddress& address : addresses) {
        set_port(address, port);
        auto socket = listen_on(address, keep_alive);
        if (socket) {
            MIG_TRY(const SocketAddress bound, bound_address(socket->borrow()));
            port = port_of(bound);
            sockets.push_back(std::move(*socket));
        } else if (is_unavailable(socket.error())) {
            unavailable = std::move(socket).error();
        } else {
            return std::move(socket).error();
        }
    }
    if (sockets.empty()) return *unavailable;  // there is at least one address
    return sockets;
}

// The ports to try, in order.
std::vector<uint16_t> candidate_ports(uint16_t first, std::optional<uint16_t> last) {
    if (first == 0) return std::vector<uint16_t>(kFreePortAttempts, 0);
    std::vector<uint16_t> ports{first};
    for (uint32_t port = first + 1U; last && port <= *last; ++port) {
        ports.push_back(static_cast<uint16_t>(port));
    }
    return ports;
}

Result<std::vector<UniqueFd>> listen_on_free_port(const TcpAddress& wanted) {
    MIG_TRY(const auto addresses, resolve(wanted, ResolveFor::Listen));
    const KeepAlive keep_alive = wanted.keep_alive ? KeepAlive::Yes : KeepAlive::No;
    for (const uint16_t port : candidate_ports(port_of(addresses.front()), wanted.last_port)) {
        auto sockets = listen_on_all(addresses, port, keep_alive);
        if (sockets || sockets.error().errnum() != EADDRINUSE) return sockets;
    }
    return make_errno(EADDRINUSE, "Failed to find an available port");
}

// --- unix:

// Whether a process has the socket behind the path. A datagram socket cannot connect to it, but
// the refusal tells, and whoever listens does not notice.
Result<bool> is_in_use(const SocketAddress& address) {
    MIG_TRY(const UniqueFd probe, make_socket(AF_UNIX, SOCK_DGRAM));
    auto connected =
        util::check_call(::connect(probe.raw(), address.get(), address.length), "connect");
    if (connected || connected.error().errnum() == EPROTOTYPE) return true;
    if (connected.error().errnum() == ECONNREFUSED) return false;
    return std::move(connected).error();
}

Result<> clear_path(const std::string& path, const SocketAddress& address) {
    struct stat info{};
    if (auto found = util::check_call(::lstat(path.c_str(), &info), "lstat"); !found) {
        if (found.error().errnum() == ENOENT) return {};
        return std::move(found).error();
    }
    if (!util::gives_way_to_socket(info)) return make_errno(EEXIST, "neither a socket nor empty");
    if (S_ISSOCK(info.st_mode)) {
        MIG_TRY(const bool in_use, is_in_use(address));
        if (in_use) return make_errno(EADDRINUSE, "somebody listens there");
    }
    MIG_CHECK(util::check_call(::unlink(path.c_str()), "unlink"));
    return {};
}

Result<ListeningSockets> listen_at_path(const UnixAddress& wanted) {
    MIG_TRY(const SocketAddress address, unix_socket_address(wanted));
    MIG_TRY(UniqueFd socket, make_socket(AF_UNIX, SOCK_STREAM));
    // An abstract name goes with its socket; of what has it now, bind() tells.
    if (!wanted.is_abstract()) {
        MIG_CHECK(clear_path(wanted.path, address));
    }
    MIG_CHECK(bind_and_listen(socket.borrow(), address));
    ListeningSockets result{.sockets = {}, .address = wanted, .path = {}};
    if (!wanted.is_abstract()) {
        MIG_TRY(result.path, SocketPath::remember(wanted.path));
    }
    result.sockets.push_back(std::move(socket));
    return result;
}

}  // namespace

Result<SocketPath> SocketPath::remember(std::string path) {
    struct stat info{};
    MIG_CHECK(util::check_call(::lstat(path.c_str(), &info), "lstat"));
    SocketPath result;
    result.path_ = std::move(path);
    result.device_ = info.st_dev;
    result.inode_ = info.st_ino;
    return result;
}

void SocketPath::remove() const noexcept {
    if (path_.empty()) return;
    struct stat info{};
    if (::lstat(path_.c_str(), &info) != 0) return;
    if (info.st_dev == device_ && info.st_ino == inode_) ::unlink(path_.c_str());
}

Result<ListeningSockets> listen_tcp(const TcpAddress& wanted) {
    MIG_TRY(auto sockets, listen_on_free_port(wanted), "listening on '{}'", host_and_port(wanted));
    MIG_TRY(const SocketAddress bound, bound_address(sockets.front().borrow()));
    MIG_TRY(TcpAddress address, numeric_address(bound));
    return ListeningSockets{
        .sockets = std::move(sockets), .address = std::move(address), .path = {}};
}

Result<ListeningSockets> listen_unix(const UnixAddress& wanted) {
    MIG_TRY(auto sockets, listen_at_path(wanted), "listening on '{}'", wanted.path);
    return sockets;
}

}  // namespace ferry::migration
