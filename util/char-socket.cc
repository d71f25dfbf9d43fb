// SPDX-License-Identifier: BSD-2-Clause
// Sockets of character streams.
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "util/char-address.h"
#include "util/socket-path.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::util {

namespace {

using Side = CharAddress::Side;

// The generic form that the socket calls want.
const sockaddr* as_sockaddr(const sockaddr_un& address) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the C API's own idiom
    return reinterpret_cast<const sockaddr*>(&address);
}

Result<UniqueFd> open_socket(int family, int protocol) {
    MIG_TRY(const int fd,
            check_call(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol), "socket"));
    return UniqueFd(fd);
}

Result<> set_option(BorrowedFd socket, int level, int option) {
    const int on = 1;
    MIG_CHECK(check_call(::setsockopt(socket.raw(), level, option, &on, sizeof on), "setsockopt"));
    return {};
}

Result<> bind_or_connect(BorrowedFd socket, const sockaddr* place, socklen_t length, Side side) {
    if (side == Side::Connect) {
        MIG_CHECK(check_call(::connect(socket.raw(), place, length), "connect"));
        return {};
    }
    constexpr int kBacklog = 1;
    MIG_CHECK(check_call(::bind(socket.raw(), place, length), "bind"));
    MIG_CHECK(check_call(::listen(socket.raw(), kBacklog), "listen"));
    return {};
}

// What an earlier process left behind. bind() tells about what has the name and stays.
void clear_path(const std::string& path) {
    struct stat info{};
    if (::lstat(path.c_str(), &info) == 0 && gives_way_to_socket(info)) ::unlink(path.c_str());
}

Result<UniqueFd> open_unix(const CharAddress& address) {
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    if (address.path.empty() || address.path.size() >= sizeof place.sun_path) {
        return make_error(ErrorKind::InvalidArgument, "the path must have 1 to {} bytes",
                          sizeof place.sun_path - 1);
    }
    std::ranges::copy(address.path, place.sun_path);
    if (address.side == Side::Listen) clear_path(address.path);
    MIG_TRY(UniqueFd socket, open_socket(AF_UNIX, 0));
    MIG_CHECK(bind_or_connect(socket.borrow(), as_sockaddr(place), sizeof place, address.side));
    return socket;
}

Result<UniqueFd> open_tcp_at(const addrinfo& place, Side side) {
    MIG_TRY(UniqueFd socket, open_socket(place.ai_family, place.ai_protocol));
    if (side == Side::Listen) MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_REUSEADDR));
    MIG_CHECK(bind_or_connect(socket.borrow(), place.ai_addr, place.ai_addrlen, side));
    // Those who are accepted inherit it.
    MIG_CHECK(set_option(socket.borrow(), IPPROTO_TCP, TCP_NODELAY));
    return socket;
}

Result<UniqueFd> open_tcp(const CharAddress& address) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = address.side == Side::Listen ? AI_PASSIVE : 0;
    addrinfo* list = nullptr;
    const char* host = address.host.empty() ? nullptr : address.host.c_str();
    const int failed = ::getaddrinfo(host, address.port.c_str(), &hints, &list);
    if (failed != 0) {
        return make_error(ErrorKind::InvalidArgument, "{}", ::gai_strerror(failed));
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    Result<UniqueFd> opened = make_error(ErrorKind::InvalidArgument, "no address");
    for (const addrinfo* entry = list; entry != nullptr && !opened; entry = entry->ai_next) {
        opened = open_tcp_at(*entry, address.side);
    }
    return opened;
}

}  // namespace

Result<UniqueFd> open_char_socket(const CharAddress& address) {
    auto socket =
        address.kind == CharAddress::Kind::Unix ? open_unix(address)
        : address.kind == CharAddress::Kind::Tcp
            ? open_tcp(address)
            : Result<UniqueFd>(make_error(ErrorKind::InvalidArgument, "it is no socket's address"));
    if (!socket) return std::move(socket).error().context(to_string(address));
    return socket;
}

Result<> wait_for_char_client(BorrowedFd listener) {
    constexpr int kForever = -1;
    pollfd waiting{listener.raw(), POLLIN, 0};
    MIG_CHECK(poll_fds(&waiting, 1, kForever));
    return {};
}

}  // namespace ferry::util
