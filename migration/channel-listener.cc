// SPDX-License-Identifier: BSD-2-Clause
// ChannelListener: accepts connections on the main loop and hands each over. How many are wanted is
// its owner's business.
#include <sys/socket.h>

#include <cerrno>
#include <memory>

#include "migration/channel-fd.h"
#include "migration/channel-listen.h"
#include "migration/channel-resolve.h"
#include "migration/channel.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// Whoever connects again and again must not keep the main loop for himself.
constexpr int kAcceptsPerWakeup = 16;
// Without descriptors or memory the connections stay queued and the socket stays readable: look
// again later instead of spinning.
constexpr util::Nanoseconds kRetryPeriod = std::chrono::seconds(1);

bool lacks_resources(int errnum) {
    return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM;
}

std::string peer_name(const SocketAddress& peer, const MigrationAddress& listening) {
    if (peer.family() == AF_UNIX) return to_string(listening);
    const auto address = numeric_address(peer);
    return "tcp:" + (address ? host_and_port(*address) : std::string("unknown peer"));
}

// Callbacks hold it weakly, and the one that runs keeps it alive: the owner may destroy the
// listener from within `accepted`.
class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
    Acceptor(ListeningSockets listening, system::MainLoop& loop, ChannelListener::Accepted accepted)
        : listening_(std::move(listening)), loop_(loop), accepted_(std::move(accepted)) {}

    const MigrationAddress& address() const { return listening_.address; }

    void start() {
        for (const UniqueFd& socket : listening_.sockets) {
            watches_.push_back(loop_.watch_fd(socket.borrow(), system::MainLoop::FdEvent::Readable,
                                              [weak = weak_from_this(), fd = socket.borrow()] {
                                                  if (const auto self = weak.lock()) {
                                                      self->accept_from(fd);
                                                  }
                                              }));
        }
    }

    void stop() {
        stopped_ = true;
        watches_.clear();
        retry_.reset();
        listening_.path.remove();
        listening_.sockets.clear();
    }

 private:
    void accept_from(BorrowedFd socket) {
        for (int i = 0; i < kAcceptsPerWakeup && !stopped_; ++i) {
            SocketAddress peer;
            peer.length = sizeof(peer.storage);
            auto raw = util::check_call(
                ::accept4(socket.raw(), peer.get(), &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC),
                "accept4");
            if (!raw) {
                if (raw.error().errnum() == EAGAIN) return;
                if (lacks_resources(raw.error().errnum())) return pause();
                continue;  // that connection is gone already, or we were interrupted
            }
            // A failure closes the connection, and the peer reports it.
            auto channel = make_socket_channel(UniqueFd(*raw), peer_name(peer, listening_.address));
            if (channel) accepted_(std::move(*channel));
        }
    }

    void pause() {
        watches_.clear();
        retry_ = loop_.every(kRetryPeriod, [weak = weak_from_this()] {
            // Not from within the timer's own callback, which must not destroy itself.
            if (const auto self = weak.lock()) self->loop_.post([weak] { resume(weak); });
        });
    }

    static void resume(const std::weak_ptr<Acceptor>& weak) {
        const auto self = weak.lock();
        if (!self || self->stopped_ || !self->watches_.empty()) return;
        self->retry_.reset();
        self->start();
    }

    ListeningSockets listening_;
    system::MainLoop& loop_;
    ChannelListener::Accepted accepted_;
    std::vector<util::Registration> watches_;
    util::Registration retry_;
    bool stopped_ = false;
};

class SocketListener final : public ChannelListener {
 public:
    explicit SocketListener(std::shared_ptr<Acceptor> acceptor) : acceptor_(std::move(acceptor)) {
        acceptor_->start();
    }
    ~SocketListener() override { acceptor_->stop(); }
    SocketListener(const SocketListener&) = delete;
    SocketListener& operator=(const SocketListener&) = delete;

    MigrationAddress address() const override { return acceptor_->address(); }

 private:
    const std::shared_ptr<Acceptor> acceptor_;
};

struct Listen {
    Result<ListeningSockets> operator()(const TcpAddress& address) const {
        return listen_tcp(address);
    }
    Result<ListeningSockets> operator()(const UnixAddress& address) const {
        return listen_unix(address);
    }
    Result<ListeningSockets> operator()(const auto& address) const {
        return make_error(ErrorKind::Internal, "{} cannot be listened on",
                          to_string(MigrationAddress(address)));
    }
};

}  // namespace

Result<std::unique_ptr<ChannelListener>> ChannelListener::create(const MigrationAddress& address,
                                                                 system::MainLoop& loop,
                                                                 Accepted accepted) {
    MIG_TRY(ListeningSockets listening, std::visit(Listen(), address));
    return std::unique_ptr<ChannelListener>(std::make_unique<SocketListener>(
        std::make_shared<Acceptor>(std::move(listening), loop, std::move(accepted))));
}

}  // namespace ferry::migration
