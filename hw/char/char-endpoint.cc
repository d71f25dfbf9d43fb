// SPDX-License-Identifier: BSD-2-Clause
#include "hw/char/char-endpoint.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::chardev {

namespace {

// ---- files and terminals

Result<CharEndpoint> open_output_file(const CharAddress& address) {
    constexpr mode_t kMode = 0666;  // what the umask leaves of it
    CharEndpoint endpoint;
    endpoint.name = "file:" + address.path;
    // Non-blocking, so that a named pipe that nobody reads is an error and does not hang.
    MIG_TRY(
        endpoint.output,
        util::open_file(address.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, kMode),
        "{}", endpoint.name);
    return endpoint;
}

Result<int> flags_of(BorrowedFd fd) {
    return util::check_call(::fcntl(fd.raw(), F_GETFL), "fcntl(F_GETFL)");
}

// A copy of `fd` that does not block; `fd`, and who else has it, is as before at the end.
Result<UniqueFd> share_nonblocking(BorrowedFd fd, int flags, CharEndpoint& endpoint) {
    MIG_TRY(UniqueFd copy, util::duplicate(fd));
    endpoint.undo.emplace_back(
        [fd, flags] { (void)util::check_call(::fcntl(fd.raw(), F_SETFL, flags), "fcntl"); });
    MIG_CHECK(util::set_nonblocking(copy.borrow()));
    return copy;
}

// Every key goes to the guest at once; but Ctrl-C still ends this process, and lines end as usual.
Result<> make_raw(BorrowedFd terminal, CharEndpoint& endpoint) {
    if (::isatty(terminal.raw()) == 0) return {};
    termios before{};
    MIG_CHECK(util::check_call(::tcgetattr(terminal.raw(), &before), "tcgetattr"));
    termios raw = before;
    ::cfmakeraw(&raw);
    raw.c_lflag |= before.c_lflag & ISIG;
    raw.c_oflag |= OPOST;
    MIG_CHECK(util::check_call(::tcsetattr(terminal.raw(), TCSANOW, &raw), "tcsetattr"));
    endpoint.undo.emplace_back([terminal, before] {
        (void)util::check_call(::tcsetattr(terminal.raw(), TCSANOW, &before), "tcsetattr");
    });
    return {};
}

// ---- sockets

// The generic form that the socket calls want.
const sockaddr* as_sockaddr(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(
        &address);  // NOLINT(cppcoreguidelines-pro-type-reinterpret-cast): the C API's own idiom
}

Result<UniqueFd> open_socket(int family, int protocol) {
    MIG_TRY(const int fd,
            util::check_call(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol), "socket"));
    return UniqueFd(fd);
}

Result<> set_option(BorrowedFd socket, int level, int option) {
    const int on = 1;
    MIG_CHECK(
        util::check_call(::setsockopt(socket.raw(), level, option, &on, sizeof on), "setsockopt"));
    return {};
}

Result<> bind_or_connect(BorrowedFd socket, const sockaddr* place, socklen_t length,
                         CharAddress::Side side) {
    if (side == CharAddress::Side::Connect) {
        MIG_CHECK(util::check_call(::connect(socket.raw(), place, length), "connect"));
        return {};
    }
    constexpr int kBacklog = 1;
    MIG_CHECK(util::check_call(::bind(socket.raw(), place, length), "bind"));
    MIG_CHECK(util::check_call(::listen(socket.raw(), kBacklog), "listen"));
    return {};
}

// What an earlier process left behind, but nothing else that has the name.
void remove_socket(const std::string& path) {
    struct stat info{};
    if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
}

Result<UniqueFd> open_unix(const CharAddress& address, CharEndpoint& endpoint) {
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    if (address.path.size() >= sizeof place.sun_path) {
        return make_error(ErrorKind::InvalidArgument, "the path is longer than {} bytes",
                          sizeof place.sun_path - 1);
    }
    std::ranges::copy(address.path, place.sun_path);
    const bool listens = address.side == CharAddress::Side::Listen;
    if (listens) remove_socket(address.path);
    MIG_TRY(UniqueFd socket, open_socket(AF_UNIX, 0));
    MIG_CHECK(bind_or_connect(socket.borrow(), as_sockaddr(place), sizeof place, address.side));
    if (listens) endpoint.undo.emplace_back([path = address.path] { ::unlink(path.c_str()); });
    return socket;
}

Result<UniqueFd> open_tcp_at(const addrinfo& place, CharAddress::Side side) {
    MIG_TRY(UniqueFd socket, open_socket(place.ai_family, place.ai_protocol));
    if (side == CharAddress::Side::Listen) {
        MIG_CHECK(set_option(socket.borrow(), SOL_SOCKET, SO_REUSEADDR));
    }
    MIG_CHECK(bind_or_connect(socket.borrow(), place.ai_addr, place.ai_addrlen, side));
    MIG_CHECK(set_option(socket.borrow(), IPPROTO_TCP, TCP_NODELAY));
    return socket;
}

Result<UniqueFd> open_tcp(const CharAddress& address) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = address.side == CharAddress::Side::Listen ? AI_PASSIVE : 0;
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

Result<> use_socket(CharEndpoint& endpoint, UniqueFd socket) {
    MIG_CHECK(util::set_nonblocking(socket.borrow()));
    MIG_TRY(endpoint.output, util::duplicate(socket.borrow()));
    endpoint.input = std::move(socket);
    return {};
}

Result<CharEndpoint> open_stream_socket(const CharAddress& address) {
    const bool is_unix = address.kind == CharAddress::Kind::Unix;
    CharEndpoint endpoint{.kind = CharEndpoint::Kind::Socket};
    endpoint.name =
        is_unix ? "unix:" + address.path : fmt::format("tcp:{}:{}", address.host, address.port);
    MIG_TRY(UniqueFd socket, is_unix ? open_unix(address, endpoint) : open_tcp(address), "{}",
            endpoint.name);
    if (address.side == CharAddress::Side::Connect) {
        MIG_CHECK(use_socket(endpoint, std::move(socket)), "{}", endpoint.name);
        return endpoint;
    }
    MIG_CHECK(util::set_nonblocking(socket.borrow()), "{}", endpoint.name);
    endpoint.listener = std::move(socket);
    if (address.wait == CharAddress::Wait::ForClient) {
        pollfd waiting{endpoint.listener.raw(), POLLIN, 0};
        MIG_CHECK(util::poll_fds(&waiting, 1, -1), "{}: waiting for a client", endpoint.name);
        MIG_CHECK(accept_client(endpoint));
    }
    return endpoint;
}

}  // namespace

Result<> accept_client(CharEndpoint& endpoint) {
    auto client = util::check_call(
        ::accept4(endpoint.listener.raw(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK),
        "accept");
    if (!client) {
        const int reason = client.error().errnum();
        if (reason == EAGAIN || reason == EINTR || reason == ECONNABORTED) return {};
        return std::move(client).error().context(endpoint.name);
    }
    MIG_CHECK(use_socket(endpoint, UniqueFd(*client)), "{}", endpoint.name);
    return {};
}

Result<CharEndpoint> open_terminal(BorrowedFd input, BorrowedFd output) {
    CharEndpoint endpoint;
    endpoint.name = "stdio";
    // Both before either is changed: on a terminal they are one.
    MIG_TRY(const int input_flags, flags_of(input), "stdin");
    MIG_TRY(const int output_flags, flags_of(output), "stdout");
    MIG_TRY(endpoint.input, share_nonblocking(input, input_flags, endpoint), "stdin");
    MIG_TRY(endpoint.output, share_nonblocking(output, output_flags, endpoint), "stdout");
    MIG_CHECK(make_raw(input, endpoint), "stdio");
    return endpoint;
}

Result<CharEndpoint> open_endpoint(const CharAddress& address) {
    switch (address.kind) {
        case CharAddress::Kind::Null: return CharEndpoint{};
        case CharAddress::Kind::File: return open_output_file(address);
        case CharAddress::Kind::Stdio:
            return open_terminal(BorrowedFd(STDIN_FILENO), BorrowedFd(STDOUT_FILENO));
        case CharAddress::Kind::Unix:
        case CharAddress::Kind::Tcp: return open_stream_socket(address);
    }
    std::unreachable();
}

}  // namespace ferry::chardev
