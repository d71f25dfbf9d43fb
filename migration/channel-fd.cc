// SPDX-License-Identifier: BSD-2-Clause
#include "migration/channel-fd.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <optional>

#include "migration/channel-syscall.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

Result<PolledFd::Parts> PolledFd::prepare(UniqueFd fd) {
    MIG_CHECK(util::set_nonblocking(fd.borrow()));
    MIG_CHECK(util::check_call(::fcntl(fd.raw(), F_SETFD, FD_CLOEXEC), "fcntl(F_SETFD)"));
    MIG_TRY(util::EventFd wake, util::EventFd::create());
    return Parts{std::move(fd), std::move(wake)};
}

PolledFd::PolledFd(Parts parts, Type type, std::string name)
    : fd_(std::move(parts.fd)),
      type_(type),
      name_(std::move(name)),
      waker_(std::move(parts.wake)) {}

Result<size_t> PolledFd::read_some(MutBytes into, std::atomic<uint64_t>& moved) {
    assert(!into.empty());
    MIG_CHECK(check_usable());
    if (type_ == Type::Pipe && !read_before_) MIG_CHECK(waker_.wait(fd_.borrow(), POLLIN));
    for (;;) {
        const Moved got = read_now(fd_.borrow(), into);
        if (got.not_now()) {
            MIG_CHECK(waker_.wait(fd_.borrow(), POLLIN));
            continue;
        }
        if (got.errnum != 0) return failure("receiving", got.errnum);
        // shutdown() ends a socket's stream, which is no orderly end.
        if (got.bytes == 0) MIG_CHECK(waker_.check());
        read_before_ = true;
        moved.fetch_add(got.bytes, std::memory_order_relaxed);
        return got.bytes;
    }
}

Result<> PolledFd::write_all(std::span<const ConstBytes> parts, std::atomic<uint64_t>& moved) {
    MIG_CHECK(check_usable());
    if (finished_) {
        return make_error(ErrorKind::InvalidState, "{}: sending after the end", name_);
    }
    std::optional<SignalShield> shield;
    if (type_ == Type::Pipe) shield.emplace(SIGPIPE);
    std::array<iovec, PartsCursor::kBatch> room;
    PartsCursor cursor(parts);
    while (!cursor.done()) {
        // A peer that always has room must not keep a cancelled thread busy.
        MIG_CHECK(waker_.check());
        const auto batch = cursor.next(room);
        const Moved sent =
            type_ == Type::Socket ? send_now(fd_.borrow(), batch) : write_now(fd_.borrow(), batch);
        if (sent.not_now()) {
            MIG_CHECK(waker_.wait(fd_.borrow(), POLLOUT));
            continue;
        }
        if (sent.errnum != 0) {
            if (shield && sent.errnum == EPIPE) shield->absorb();
            return failure("sending", sent.errnum);
        }
        moved.fetch_add(sent.bytes, std::memory_order_relaxed);
        cursor.advance(sent.bytes);
    }
    return {};
}

Result<> PolledFd::finish_writing() {
    MIG_CHECK(waker_.check());
    if (finished_) return {};
    finished_ = true;
    switch (type_) {
        case Type::Socket: {
            const auto ended = util::check_call(::shutdown(fd_.raw(), SHUT_WR), "shutdown");
            if (!ended) return failure("ending the stream", ended.error().errnum());
            return {};
        }
        case Type::Pipe: fd_.reset(); return {};
    }
    return {};
}

void PolledFd::shutdown(Error reason) noexcept {
    waker_.wake(std::move(reason));
    // Tells the peer now. A pipe's other end learns of it when the channel goes: only the thread
    // that uses the pipe may close it.
    if (type_ == Type::Socket) ::shutdown(fd_.raw(), SHUT_RDWR);
}

Error PolledFd::failure(std::string_view step, int errnum) const {
    if (auto woken = waker_.check(); !woken) return std::move(woken).error();
    return transfer_error(name_, step, errnum);
}

Result<> PolledFd::check_usable() const {
    MIG_CHECK(waker_.check());
    if (!fd_.valid()) return make_error(ErrorKind::InvalidState, "{}: already closed", name_);
    return {};
}

namespace {

class FdChannel final : public MigrationChannel {
 public:
    FdChannel(PolledFd::Parts parts, PolledFd::Type type, Direction direction, std::string name)
        : fd_(std::move(parts), type, std::move(name)), direction_(direction) {}

    std::string_view name() const override { return fd_.name(); }
    Features features() const override { return {.duplex = direction_ == Direction::Duplex}; }

    Result<size_t> read_some(MutBytes into) override {
        if (direction_ == Direction::WriteOnly) return wrong_way();
        return fd_.read_some(into, bytes_read_);
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        if (direction_ == Direction::ReadOnly) return wrong_way();
        return fd_.write_all(parts, bytes_written_);
    }
    Result<> finish_writing() override {
        if (direction_ == Direction::ReadOnly) return fd_.waker().check();
        return fd_.finish_writing();
    }
    void shutdown(Error reason) noexcept override { fd_.shutdown(std::move(reason)); }

 private:
    Error wrong_way() const {
        if (auto woken = fd_.waker().check(); !woken) return std::move(woken).error();
        return make_error(ErrorKind::InvalidState, "{}: open for {} only", name(),
                          direction_ == Direction::ReadOnly ? "reading" : "writing");
    }

    PolledFd fd_;
    const Direction direction_;
};

}  // namespace

Result<std::unique_ptr<MigrationChannel>> make_fd_channel(UniqueFd fd, PolledFd::Type type,
                                                          Direction direction, std::string name) {
    MIG_TRY(PolledFd::Parts parts, PolledFd::prepare(std::move(fd)), "{}", name);
    return std::unique_ptr<MigrationChannel>(
        std::make_unique<FdChannel>(std::move(parts), type, direction, std::move(name)));
}

Result<std::unique_ptr<MigrationChannel>> make_socket_channel(UniqueFd fd, std::string name) {
    // Writes are batched by the streams above; what is small (a vote, an acknowledgement) is
    // urgent. Fails where the socket is not TCP, which is as good.
    const int on = 1;
    ::setsockopt(fd.raw(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return make_fd_channel(std::move(fd), PolledFd::Type::Socket, Direction::Duplex,
                           std::move(name));
}

}  // namespace ferry::migration
