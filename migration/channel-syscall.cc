// SPDX-License-Identifier: BSD-2-Clause
#include "migration/channel-syscall.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "util/try.h"

namespace ferry::migration {

namespace {
template <typename Call>
Moved move_bytes(Call call) {
    for (;;) {
        const ssize_t n = call();
        if (n >= 0) return Moved{.bytes = static_cast<size_t>(n)};
        if (errno != EINTR) return Moved{.errnum = errno};
    }
}

ErrorKind kind_of(int errnum) {
    switch (errnum) {
        case EPIPE:
        case ECONNRESET:
        case ECONNABORTED:
        case ENOTCONN: return ErrorKind::PeerClosed;
        case ETIMEDOUT:
        case EHOSTUNREACH:
        case ENETUNREACH: return ErrorKind::PeerFailed;
        default: return ErrorKind::Syscall;
    }
}
}  // namespace

bool Moved::not_now() const {
    return errnum == EAGAIN || errnum == EWOULDBLOCK;
}

Moved read_now(BorrowedFd fd, MutBytes into) {
    return move_bytes([&] { return ::read(fd.raw(), into.data(), into.size()); });
}

Moved read_at(BorrowedFd fd, MutBytes into, uint64_t offset) {
    return move_bytes(
        [&] { return ::pread(fd.raw(), into.data(), into.size(), static_cast<off_t>(offset)); });
}

Moved write_now(BorrowedFd fd, std::span<const iovec> parts) {
    return move_bytes(
        [&] { return ::writev(fd.raw(), parts.data(), static_cast<int>(parts.size())); });
}

Moved write_at(BorrowedFd fd, std::span<const iovec> parts, uint64_t offset) {
    return move_bytes([&] {
        return ::pwritev(fd.raw(), parts.data(), static_cast<int>(parts.size()),
                         static_cast<off_t>(offset));
    });
}

Moved send_now(BorrowedFd socket, std::span<const iovec> parts) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    return move_bytes([&] { return ::sendmsg(socket.raw(), &message, MSG_NOSIGNAL); });
}

Error transfer_error(std::string_view channel, std::string_view step, int errnum) {
    return Error(kind_of(errnum), fmt::format("{}: {}", channel, step), errnum);
}

std::span<const iovec> PartsCursor::next(std::span<iovec> room, size_t max_bytes) const {
    size_t used = 0;
    size_t skip = written_;
    for (const ConstBytes& part : parts_) {
        if (used == room.size() || max_bytes == 0) break;
        const ConstBytes rest = part.subspan(skip);
        skip = 0;
        if (rest.empty()) continue;
        const size_t length = std::min(rest.size(), max_bytes);
        room[used++] = iovec{const_cast<std::byte*>(rest.data()), length};
        max_bytes -= length;
    }
    return room.first(used);
}

void PartsCursor::advance(size_t bytes) {
    while (bytes != 0) {
        const size_t step = std::min(bytes, parts_.front().size() - written_);
        written_ += step;
        bytes -= step;
        skip_empty();
    }
}

void PartsCursor::skip_empty() {
    while (!parts_.empty() && written_ == parts_.front().size()) {
        parts_ = parts_.subspan(1);
        written_ = 0;
    }
}

SignalShield::SignalShield(int signum) {
    ::sigemptyset(&signal_);
    ::sigaddset(&signal_, signum);
    ::pthread_sigmask(SIG_BLOCK, &signal_, &before_);
    // Somebody else may have blocked it and left one pending, which is not ours to take.
    if (::sigismember(&before_, signum) == 1) {
        sigset_t pending{};
        ::sigpending(&pending);
        was_pending_ = ::sigismember(&pending, signum) == 1;
    }
}

SignalShield::~SignalShield() {
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void SignalShield::absorb() {
    if (was_pending_) return;
    const timespec no_wait{};
    while (::sigtimedwait(&signal_, nullptr, &no_wait) == -1 && errno == EINTR) {
    }
}

}  // namespace ferry::migration
