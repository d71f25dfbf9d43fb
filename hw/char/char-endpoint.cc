// SPDX-License-Identifier: BSD-2-Clause
#include "hw/char/char-endpoint.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::chardev {

using util::CharAddress;

namespace {

// ---- files and terminals

Result<CharEndpoint> open_output_file(const CharAddress& address) {
    constexpr mode_t kMode = 0666;  // what the umask leaves of it
    CharEndpoint endpoint;
    endpoint.name = to_string(address);
    const int existing = address.existing == CharAddress::Existing::Kept ? O_APPEND : O_TRUNC;
    // Non-blocking, so that a named pipe that nobody reads is an error and does not hang.
    MIG_TRY(endpoint.output,
            util::open_file(address.path, O_WRONLY | O_CREAT | existing | O_CLOEXEC | O_NONBLOCK,
                            kMode),
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

Result<> use_socket(CharEndpoint& endpoint, UniqueFd socket) {
    MIG_CHECK(util::set_nonblocking(socket.borrow()));
    MIG_TRY(endpoint.output, util::duplicate(socket.borrow()));
    endpoint.input = std::move(socket);
    return {};
}

Result<CharEndpoint> open_stream_socket(const CharAddress& address) {
    CharEndpoint endpoint{.kind = CharEndpoint::Kind::Socket, .name = to_string(address)};
    MIG_TRY(UniqueFd socket, util::open_char_socket(address));
    if (address.side == CharAddress::Side::Connect) {
        MIG_CHECK(use_socket(endpoint, std::move(socket)), "{}", endpoint.name);
        return endpoint;
    }
    if (address.kind == CharAddress::Kind::Unix) {
        endpoint.undo.emplace_back([path = address.path] { ::unlink(path.c_str()); });
    }
    MIG_CHECK(util::set_nonblocking(socket.borrow()), "{}", endpoint.name);
    endpoint.listener = std::move(socket);
    if (address.wait == CharAddress::Wait::ForClient) {
        MIG_CHECK(util::wait_for_char_client(endpoint.listener.borrow()),
                  "{}: waiting for a client", endpoint.name);
        MIG_CHECK(accept_client(endpoint));
    }
    return endpoint;
}

// One that is connected already; nobody else will come.
Result<CharEndpoint> use_inherited(const CharAddress& address) {
    CharEndpoint endpoint{.kind = CharEndpoint::Kind::Socket, .name = to_string(address)};
    MIG_CHECK(use_socket(endpoint, UniqueFd(address.fd)), "{}", endpoint.name);
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
        case CharAddress::Kind::Fd: return use_inherited(address);
    }
    std::unreachable();
}

}  // namespace ferry::chardev
