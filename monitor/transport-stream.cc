// SPDX-License-Identifier: BSD-2-Clause
// The one implementation of MonitorTransport: a pair of stream descriptors (often the same), which
// a listener may renew.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "monitor/transport.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

constexpr size_t kReadBytes = 16 * 1024;

bool would_block(const Error& error) {
    return error.errnum() == EAGAIN || error.errnum() == EINTR;
}

// The descriptors among the ancillary data of a message.
std::vector<UniqueFd> descriptors_of(msghdr& message) {
    std::vector<UniqueFd> fds;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
            fds.emplace_back(fd);
        }
    }
    return fds;
}

Result<size_t> receive(BorrowedFd socket, MutBytes into, std::vector<UniqueFd>& fds) {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxPassedFds * sizeof(int))> control{};
    iovec part{into.data(), into.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    MIG_TRY(const int count,
            util::check_call(::recvmsg(socket.raw(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC),
                             "recvmsg(monitor)"));
    fds = descriptors_of(message);
    return static_cast<size_t>(count);
}

// Makes a descriptor that others share non-blocking, and gives it back as it was.
class SharedNonBlocking {
 public:
    static Result<SharedNonBlocking> create(UniqueFd fd) {
        MIG_TRY(const int flags, util::check_call(::fcntl(fd.raw(), F_GETFL), "fcntl(F_GETFL)"));
        MIG_CHECK(util::set_nonblocking(fd.borrow()));
        return SharedNonBlocking(std::move(fd), flags);
    }
    SharedNonBlocking(SharedNonBlocking&&) noexcept = default;
    SharedNonBlocking& operator=(SharedNonBlocking&&) = delete;
    ~SharedNonBlocking() {
        if (fd_.valid()) ::fcntl(fd_.raw(), F_SETFL, flags_);
    }
    BorrowedFd fd() const { return fd_.borrow(); }

 private:
    SharedNonBlocking(UniqueFd fd, int flags) : fd_(std::move(fd)), flags_(flags) {}
    UniqueFd fd_;
    int flags_;
};

// The two directions of a conversation.
class Stream {
 public:
    virtual ~Stream() = default;
    virtual BorrowedFd in() const = 0;
    virtual BorrowedFd out() const = 0;
    virtual Result<size_t> read(MutBytes into, std::vector<UniqueFd>& fds) = 0;
    virtual Result<size_t> write(ConstBytes from) = 0;
};

class SocketStream final : public Stream {
 public:
    explicit SocketStream(UniqueFd socket) : socket_(std::move(socket)) {}
    BorrowedFd in() const override { return socket_.borrow(); }
    BorrowedFd out() const override { return socket_.borrow(); }
    Result<size_t> read(MutBytes into, std::vector<UniqueFd>& fds) override {
        return receive(socket_.borrow(), into, fds);
    }
    Result<size_t> write(ConstBytes from) override {
        MIG_TRY(const int count, util::check_call(::send(socket_.raw(), from.data(), from.size(),
                                                         MSG_DONTWAIT | MSG_NOSIGNAL),
                                                  "send(monitor)"));
        return static_cast<size_t>(count);
    }

 private:
    UniqueFd socket_;
};

class StdioStream final : public Stream {
 public:
    StdioStream(SharedNonBlocking in, SharedNonBlocking out)
        : in_(std::move(in)), out_(std::move(out)) {}
    BorrowedFd in() const override { return in_.fd(); }
    BorrowedFd out() const override { return out_.fd(); }
    Result<size_t> read(MutBytes into, std::vector<UniqueFd>& /*fds*/) override {
        return util::read_fd(in_.fd(), into, "read(stdin)");
    }
    Result<size_t> write(ConstBytes from) override {
        return util::write_fd(out_.fd(), from, "write(stdout)");
    }

 private:
    SharedNonBlocking in_;
    SharedNonBlocking out_;
};

class StreamTransport final : public MonitorTransport {
 public:
    StreamTransport(system::MainLoop& loop, std::unique_ptr<Stream> stream)
        : loop_(loop), stream_(std::move(stream)) {}
    StreamTransport(system::MainLoop& loop, UniqueFd listener, std::string unix_path)
        : loop_(loop), listener_(std::move(listener)), unix_path_(std::move(unix_path)) {}
    ~StreamTransport() override {
        if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
    }
    StreamTransport(const StreamTransport&) = delete;
    StreamTransport& operator=(const StreamTransport&) = delete;

    void start(MonitorUser& user) override {
        user_ = &user;
        if (listener_.valid()) return listen();
        post([this] { converse(); });
    }

    void send(std::string_view text) override {
        if (!stream_ || leaving_) return;
        output_ += text;
        flush();
        if (backlog_bytes() > kMaxOutputBytes) leave();
    }

    size_t backlog_bytes() const override { return output_.size() - sent_; }

    Kind kind() const override {
        const bool terminal =
            stream_ && ::isatty(stream_->in().raw()) == 1 && ::isatty(stream_->out().raw()) == 1;
        return terminal ? Kind::Terminal : Kind::Stream;
    }

    void set_reading(Reading reading) override {
        reading_ = reading;
        if (!stream_ || leaving_) return;
        if (reading == Reading::Off) {
            readable_.reset();
        } else if (!readable_) {
            readable_ =
                watch(stream_->in(), system::MainLoop::FdEvent::Readable, [this] { read(); });
        }
    }

 private:
    // Callbacks may come once more after a watch or this object went.
    std::function<void()> guarded(std::function<void()> call) {
        return [weak = std::weak_ptr(alive_), conversation = conversation_, this,
                call = std::move(call)] {
            const auto alive = weak.lock();
            if (!alive || conversation != conversation_) return;
            const auto copy = call;  // the call may remove its watch, and this closure with it
            copy();
        };
    }
    void post(std::function<void()> call) { loop_.post(guarded(std::move(call))); }
    util::Registration watch(BorrowedFd fd, system::MainLoop::FdEvent event,
                             std::function<void()> call) {
        return loop_.watch_fd(fd, event, guarded(std::move(call)));
    }

    void listen() {
        accepting_ =
            watch(listener_.borrow(), system::MainLoop::FdEvent::Readable, [this] { accept(); });
    }

    void accept() {
        auto socket = util::check_call(
            ::accept4(listener_.raw(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK), "accept");
        if (!socket) return;  // gone again: the next one will make the listener readable
        accepting_.reset();
        stream_ = std::make_unique<SocketStream>(UniqueFd(*socket));
        converse();
    }

    void converse() {
        leaving_ = false;
        ++conversation_;
        set_reading(reading_);
        user_->opened();
    }

    void read() {
        std::array<std::byte, kReadBytes> buffer;
        std::vector<UniqueFd> fds;
        auto count = stream_->read(buffer, fds);
        if (!count && would_block(count.error())) return;
        if (!count || *count == 0) return leave();
        user_->received(ConstBytes(buffer).first(*count), std::move(fds));
    }

    void flush() {
        while (backlog_bytes() > 0) {
            auto count = stream_->write(bytes_of(output_).subspan(sent_));
            if (!count && !would_block(count.error())) return leave();
            if (!count) break;
            sent_ += *count;
        }
        if (sent_ >= output_.size() / 2) {
            output_.erase(0, sent_);
            sent_ = 0;
        }
        if (output_.empty()) {
            writable_.reset();
        } else if (!writable_) {
            writable_ = watch(stream_->out(), system::MainLoop::FdEvent::Writable, [this] {
                flush();
                if (output_.empty() && !leaving_) user_->drained();
            });
        }
    }

    // The user is told from the loop: it may be in the middle of sending.
    void leave() {
        if (leaving_) return;
        leaving_ = true;
        readable_.reset();
        writable_.reset();
        output_.clear();
        sent_ = 0;
        post([this] {
            stream_.reset();
            ++conversation_;
            reading_ = Reading::On;
            user_->closed();
            if (listener_.valid()) listen();
        });
    }

    system::MainLoop& loop_;
    MonitorUser* user_ = nullptr;
    UniqueFd listener_;
    std::string unix_path_;
    std::unique_ptr<Stream> stream_;
    uint64_t conversation_ = 0;  // counts clients, so that late callbacks are recognised
    bool leaving_ = false;
    Reading reading_ = Reading::On;
    std::string output_;
    size_t sent_ = 0;  // of output_
    std::optional<util::Registration> accepting_, readable_, writable_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace

Result<std::unique_ptr<MonitorTransport>> make_connected_transport(system::MainLoop& loop,
                                                                   UniqueFd socket) {
    return std::make_unique<StreamTransport>(loop,
                                             std::make_unique<SocketStream>(std::move(socket)));
}

Result<std::unique_ptr<MonitorTransport>> make_listening_transport(system::MainLoop& loop,
                                                                   UniqueFd listener,
                                                                   std::string unix_path) {
    MIG_CHECK(util::set_nonblocking(listener.borrow()));
    return std::make_unique<StreamTransport>(loop, std::move(listener), std::move(unix_path));
}

Result<std::unique_ptr<MonitorTransport>> make_stdio_transport(system::MainLoop& loop) {
    MIG_TRY(UniqueFd in, util::duplicate(BorrowedFd(STDIN_FILENO)));
    MIG_TRY(UniqueFd out, util::duplicate(BorrowedFd(STDOUT_FILENO)));
    MIG_TRY(SharedNonBlocking shared_in, SharedNonBlocking::create(std::move(in)));
    MIG_TRY(SharedNonBlocking shared_out, SharedNonBlocking::create(std::move(out)));
    return std::make_unique<StreamTransport>(
        loop, std::make_unique<StdioStream>(std::move(shared_in), std::move(shared_out)));
}

}  // namespace ferry::monitor
