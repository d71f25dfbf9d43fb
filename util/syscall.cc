// SPDX-License-Identifier: BSD-2-Clause
#include "util/syscall.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "util/try.h"

namespace ferry {

void UniqueFd::reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

}  // namespace ferry

namespace ferry::util {

namespace {
// Repeats a call that a signal interrupted.
template <typename Call>
auto retry_interrupted(Call call) {
    decltype(call()) value;
    do {
        value = call();
    } while (value == -1 && errno == EINTR);
    return value;
}
}  // namespace

Error errno_error(std::string call) {
    return Error(ErrorKind::Syscall, std::move(call), errno);
}

Result<int> check_call(long value, std::string_view call) {
    if (value == -1) return errno_error(std::string(call));
    return static_cast<int>(value);
}

Result<UniqueFd> open_file(const std::string& path, int flags, mode_t mode) {
    const int fd = retry_interrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
    if (fd == -1) return errno_error(fmt::format("open({})", path));
    return UniqueFd(fd);
}

Result<size_t> read_fd(BorrowedFd fd, MutBytes into, std::string_view call) {
    const ssize_t n = retry_interrupted([&] { return ::read(fd.raw(), into.data(), into.size()); });
    if (n == -1) return errno_error(std::string(call));
    return static_cast<size_t>(n);
}

Result<size_t> write_fd(BorrowedFd fd, ConstBytes from, std::string_view call) {
    const ssize_t n =
        retry_interrupted([&] { return ::write(fd.raw(), from.data(), from.size()); });
    if (n == -1) return errno_error(std::string(call));
    return static_cast<size_t>(n);
}

Result<> pread_all(BorrowedFd fd, MutBytes into, uint64_t offset, std::string_view call) {
    while (!into.empty()) {
        const ssize_t n = retry_interrupted([&] {
            return ::pread(fd.raw(), into.data(), into.size(), static_cast<off_t>(offset));
        });
        if (n == -1) return errno_error(std::string(call));
        if (n == 0) return make_errno(EIO, "{}: {} bytes short", call, into.size());
        into = into.subspan(static_cast<size_t>(n));
        offset += static_cast<uint64_t>(n);
    }
    return {};
}

Result<> pwrite_all(BorrowedFd fd, ConstBytes from, uint64_t offset, std::string_view call) {
    while (!from.empty()) {
        const ssize_t n = retry_interrupted([&] {
            return ::pwrite(fd.raw(), from.data(), from.size(), static_cast<off_t>(offset));
        });
        if (n == -1) return errno_error(std::string(call));
        if (n == 0) return make_errno(EIO, "{}: {} bytes short", call, from.size());
        from = from.subspan(static_cast<size_t>(n));
        offset += static_cast<uint64_t>(n);
    }
    return {};
}

Result<> set_nonblocking(BorrowedFd fd) {
    const int flags = ::fcntl(fd.raw(), F_GETFL);
    if (flags == -1) return errno_error("fcntl(F_GETFL)");
    if (::fcntl(fd.raw(), F_SETFL, flags | O_NONBLOCK) == -1) {
        return errno_error("fcntl(F_SETFL, O_NONBLOCK)");
    }
    return {};
}

Result<UniqueFd> duplicate(BorrowedFd fd) {
    const int copy = ::fcntl(fd.raw(), F_DUPFD_CLOEXEC, 0);
    if (copy == -1) return errno_error("fcntl(F_DUPFD_CLOEXEC)");
    return UniqueFd(copy);
}

Result<int> poll_fds(pollfd* fds, size_t count, int timeout_ms) {
    const int n = retry_interrupted([&] { return ::poll(fds, count, timeout_ms); });
    if (n == -1) return errno_error("poll");
    return n;
}

}  // namespace ferry::util
