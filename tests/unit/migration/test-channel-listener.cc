// SPDX-License-Identifier: BSD-2-Clause
// Connecting and listening.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "tests/unit/migration/test-channel-support.h"

namespace ferry::migration {
namespace {

sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

// Bound to the path; listens when `backlog` is given.
UniqueFd unix_socket_at(const std::string& path, std::optional<int> backlog = std::nullopt) {
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un address = unix_address(path);
    EXPECT_EQ(::bind(socket.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
    if (backlog) {
        EXPECT_EQ(::listen(socket.raw(), *backlog), 0);
    }
    return socket;
}

UniqueFd tcp_socket() {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(socket.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
    return socket;
}

std::string port_of(const UniqueFd& socket) {
    sockaddr_in address{};
    socklen_t length = sizeof(address);
    ::getsockname(socket.raw(), reinterpret_cast<sockaddr*>(&address), &length);
    return std::to_string(ntohs(address.sin_port));
}

std::string port_of(const MigrationAddress& address) {
    return std::get<TcpAddress>(address).port;
}

class ChannelConnect : public testing::Test {
 protected:
    const TemporaryDirectory directory_;
    const std::string path_ = directory_ / "socket";
};
using ChannelListenerTest = ChannelConnect;

// --- Connecting.

TEST_F(ChannelConnect, MissingSocketIsNamed) {
    EXPECT_EQ(error_of(connect_to(UnixAddress{path_})).message(),
              "Failed to connect to '" + path_ + "': No such file or directory");
}

TEST_F(ChannelConnect, RefusedConnectionIsNamed) {
    const UniqueFd deaf = tcp_socket();
    EXPECT_EQ(error_of(connect_to(TcpAddress{"127.0.0.1", port_of(deaf)})).message(),
              "Failed to connect to '127.0.0.1:" + port_of(deaf) + "': Connection refused");
}

TEST_F(ChannelConnect, UnknownServiceIsNamed) {
    const std::string text =
        error_of(connect_to(TcpAddress{"127.0.0.1", "no-such-service"})).message();
    EXPECT_TRUE(text.starts_with("address resolution failed for 127.0.0.1:no-such-service: "))
        << text;
}

TEST_F(ChannelConnect, UnixPathTooLongIsNamed) {
    const std::string path(108, 'x');
    EXPECT_EQ(error_of(connect_to(UnixAddress{path})).message(),
              "UNIX socket path '" + path + "' is too long: must be less than 108 bytes");
    EXPECT_EQ(error_of(connect_to(UnixAddress{})).message(), "invalid Unix socket address");
}

TEST_F(ChannelConnect, WaitingForRoomInAUnixQueueCanBeCancelled) {
    const UniqueFd busy = unix_socket_at(path_, 0);
    const sockaddr_un address = unix_address(path_);
    std::vector<UniqueFd> fillers;
    do {
        fillers.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    } while (::connect(fillers.back().raw(), reinterpret_cast<const sockaddr*>(&address),
                       sizeof(address)) == 0);
    const util::EventFd cancel = must(util::EventFd::create());
    Error error(ErrorKind::Internal, "");
    BlockingCall connect([&] { error = error_of(connect_channel(UnixAddress{path_}, cancel)); });
    connect.wait_until_blocked();
    cancel.signal();
    connect.join();
    EXPECT_EQ(error.kind(), ErrorKind::Cancelled) << error.message();
}

TEST_F(ChannelConnect, WaitingForATcpPeerCanBeCancelled) {
    const UniqueFd busy = tcp_socket();
    ASSERT_EQ(::listen(busy.raw(), 0), 0);
    // With its queue full, the kernel does not answer further connections.
    sockaddr_in address{};
    socklen_t length = sizeof(address);
    ::getsockname(busy.raw(), reinterpret_cast<sockaddr*>(&address), &length);
    UniqueFd filler(::socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_EQ(::connect(filler.raw(), reinterpret_cast<sockaddr*>(&address), length), 0);
    const util::EventFd cancel = must(util::EventFd::create());
    Error error(ErrorKind::Internal, "");
    BlockingCall connect(
        [&] { error = error_of(connect_channel(TcpAddress{"127.0.0.1", port_of(busy)}, cancel)); });
    connect.wait_until_blocked();
    cancel.signal();
    connect.join();
    EXPECT_EQ(error.kind(), ErrorKind::Cancelled) << error.message();
}

TEST_F(ChannelConnect, NameResolutionCanBeCancelled) {
    const util::EventFd cancel = must(util::EventFd::create());
    cancel.signal();
    EXPECT_EQ(error_of(connect_channel(TcpAddress{"localhost", "1"}, cancel)).kind(),
              ErrorKind::Cancelled);
}

TEST_F(ChannelConnect, EveryAddressOfANameIsTried) {
    ListeningSide destination(TcpAddress{"127.0.0.1", "0"});  // not ::1, which may come first
    const auto channel = must(connect_to(TcpAddress{"localhost", port_of(destination.address())}));
    expect_ok(write_text(*channel, "x"));
    EXPECT_NE(destination.next_accepted(), nullptr);
}

TEST_F(ChannelConnect, EmptyHostIsThisHost) {
    ListeningSide destination(TcpAddress{"127.0.0.1", "0"});
    const auto channel = must(connect_to(TcpAddress{"", port_of(destination.address())}));
    EXPECT_EQ(channel->name(), "tcp::" + port_of(destination.address()));
    EXPECT_NE(destination.next_accepted(), nullptr);
}

TEST_F(ChannelConnect, WrongFamilyIsNotTried) {
    ListeningSide destination(TcpAddress{"127.0.0.1", "0"});
    TcpAddress address{"localhost", port_of(destination.address())};
    address.family = TcpAddress::Family::Ipv6;
    EXPECT_FALSE(connect_to(address));
}

// --- Listening.

TEST_F(ChannelListenerTest, PortInUseIsNamed) {
    ListeningSide first(TcpAddress{"127.0.0.1", "0"});
    const std::string port = port_of(first.address());
    ListeningSide second(TcpAddress{"127.0.0.1", port});
    ASSERT_TRUE(second.error());
    EXPECT_EQ(second.error()->message(),
              "listening on '127.0.0.1:" + port +
                  "': Failed to find an available port: Address already in use");
}

TEST_F(ChannelListenerTest, AddressOfAnotherHostIsRefused) {
    ListeningSide side(TcpAddress{"192.0.2.1", "0"});
    ASSERT_TRUE(side.error());
    EXPECT_EQ(side.error()->errnum(), EADDRNOTAVAIL);
}

TEST_F(ChannelListenerTest, OtherTransportsAreRefused) {
    ListeningSide side(FileAddress{"/x"});
    ASSERT_TRUE(side.error());
    EXPECT_EQ(side.error()->message(), "file:/x cannot be listened on");
}

TEST_F(ChannelListenerTest, PathSomebodyListensOnIsRefusedWithoutBotheringHim) {
    ListeningSide first(UnixAddress{path_});
    ListeningSide second(UnixAddress{path_});
    ASSERT_TRUE(second.error());
    EXPECT_EQ(second.error()->errnum(), EADDRINUSE);
    const auto channel = must(connect_to(UnixAddress{path_}));
    EXPECT_NE(first.next_accepted(), nullptr);
    EXPECT_EQ(first.waiting(), 0u);
}

TEST_F(ChannelListenerTest, WhatElseHasThePathIsKept) {
    const auto refused = [this] {
        ListeningSide side(UnixAddress{path_});
        return side.error() ? side.error()->message() : "";
    };
    const std::string expected =
        "listening on '" + path_ + "': neither a socket nor empty: File exists";
    put_file(path_, "precious");
    EXPECT_EQ(refused(), expected);
    EXPECT_EQ(file_content(path_), "precious");
    std::filesystem::remove(path_);
    std::filesystem::create_directory(path_);
    EXPECT_EQ(refused(), expected);
    EXPECT_TRUE(std::filesystem::is_directory(path_));
    std::filesystem::remove(path_);
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    EXPECT_EQ(refused(), expected);
    EXPECT_TRUE(std::filesystem::is_fifo(path_));
    std::filesystem::remove(path_);
    const std::string target = path_ + ".target";
    put_file(target, "");
    std::filesystem::create_symlink(target, path_);
    EXPECT_EQ(refused(), expected);
    EXPECT_TRUE(std::filesystem::is_symlink(path_));
}

TEST_F(ChannelListenerTest, EmptyFileThatReservedThePathGivesWay) {
    put_file(path_, "");
    ListeningSide side(UnixAddress{path_});
    ASSERT_FALSE(side.error());
    const auto channel = must(connect_to(UnixAddress{path_}));
    EXPECT_NE(side.next_accepted(), nullptr);
}

TEST_F(ChannelListenerTest, AbstractNameThatIsTakenIsRefused) {
    const UnixAddress name{path_, UnixAddress::Space::Abstract};
    ListeningSide first(name);
    ListeningSide second(name);
    ASSERT_TRUE(second.error());
    EXPECT_EQ(second.error()->errnum(), EADDRINUSE);
}

TEST_F(ChannelListenerTest, AbstractNamesAreNoFilesAndPaddingMakesOthers) {
    const UnixAddress name{path_, UnixAddress::Space::Abstract};
    const UnixAddress padded{path_, UnixAddress::Space::AbstractPadded};
    ListeningSide side(name);
    ASSERT_FALSE(side.error());
    EXPECT_FALSE(std::filesystem::exists(path_));
    EXPECT_EQ(error_of(connect_to(UnixAddress{path_})).errnum(), ENOENT);
    EXPECT_EQ(error_of(connect_to(padded)).errnum(), ECONNREFUSED);
    ListeningSide other(padded);
    ASSERT_FALSE(other.error());
    const auto one = must(connect_to(name));
    EXPECT_NE(side.next_accepted(), nullptr);
    const auto two = must(connect_to(padded));
    EXPECT_NE(other.next_accepted(), nullptr);
    EXPECT_EQ(side.waiting() + other.waiting(), 0u);
}

TEST_F(ChannelListenerTest, AbandonedPathIsReplaced) {
    unix_socket_at(path_, 1).reset();
    ListeningSide side(UnixAddress{path_});
    EXPECT_FALSE(side.error());
    const auto channel = must(connect_to(side.address()));
    EXPECT_NE(side.next_accepted(), nullptr);
}

TEST_F(ChannelListenerTest, PathIsRemovedAtTheEnd) {
    {
        const ListeningSide side(UnixAddress{path_});
    }
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ChannelListenerTest, PathThatIsSomebodyElsesByNowStays) {
    UniqueFd other;
    {
        const ListeningSide side(UnixAddress{path_});
        const std::string moved = directory_ / "moved";  // so that its inode stays taken
        std::filesystem::rename(path_, moved);
        other = unix_socket_at(path_, 1);
    }
    EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(ChannelListenerTest, AddressTellsTheRealPort) {
    ListeningSide side(TcpAddress{"127.0.0.1", "0"});
    const auto address = std::get<TcpAddress>(side.address());
    EXPECT_EQ(address.host, "127.0.0.1");
    EXPECT_NE(address.port, "0");
    EXPECT_EQ(address.family, TcpAddress::Family::Ipv4);
}

TEST_F(ChannelListenerTest, EmptyHostTakesConnectionsFromEveryFamily) {
    ListeningSide side(TcpAddress{"", "0"});
    ASSERT_FALSE(side.error()) << side.error()->message();
    for (const std::string_view host : {"127.0.0.1", "::1"}) {
        const auto connected = connect_to(TcpAddress{std::string(host), port_of(side.address())});
        if (!connected && host == "::1") continue;  // no IPv6 here
        ASSERT_TRUE(connected) << connected.error().message();
        EXPECT_NE(side.next_accepted(), nullptr);
    }
}

TEST_F(ChannelListenerTest, FirstFreePortOfTheRangeIsTaken) {
    ListeningSide first(TcpAddress{"127.0.0.1", "0"});
    const std::string taken = port_of(first.address());
    TcpAddress range{"127.0.0.1", taken};
    range.last_port = UINT16_MAX;
    ListeningSide second(range);
    ASSERT_FALSE(second.error()) << second.error()->message();
    EXPECT_GT(std::stoi(port_of(second.address())), std::stoi(taken));
}

TEST_F(ChannelListenerTest, EveryConnectionIsHandedOver) {
    ListeningSide side(UnixAddress{path_});
    std::vector<std::unique_ptr<MigrationChannel>> sources;
    for (int i = 0; i < 40; ++i) sources.push_back(must(connect_to(UnixAddress{path_})));
    for (int i = 0; i < 40; ++i) {
        const auto channel = side.next_accepted();
        ASSERT_NE(channel, nullptr);
        EXPECT_EQ(channel->name(), "unix:" + path_);
    }
}

TEST_F(ChannelListenerTest, AcceptedTcpChannelIsNamedByItsPeer) {
    ListeningSide side(TcpAddress{"127.0.0.1", "0"});
    const auto source = must(connect_to(side.address()));
    const auto channel = side.next_accepted();
    EXPECT_TRUE(channel->name().starts_with("tcp:127.0.0.1:")) << channel->name();
    EXPECT_NE(channel->name(), source->name());
}

TEST_F(ChannelListenerTest, OwnerMayDestroyItWhenItHasEnough) {
    test::FakeClock clock;
    test::TestLoop loop(clock);
    std::unique_ptr<ChannelListener> listener;
    std::unique_ptr<MigrationChannel> accepted;
    loop.run([&] {
        listener = must(ChannelListener::create(UnixAddress{path_}, loop, [&](auto channel) {
            accepted = std::move(channel);
            listener.reset();
        }));
    });
    const auto first = must(connect_to(UnixAddress{path_}));
    EXPECT_TRUE(loop.wait_for([&] { return accepted != nullptr && listener == nullptr; }));
    EXPECT_FALSE(std::filesystem::exists(path_));
}

// Without a free descriptor the main loop must neither spin nor forget the connection.
TEST_F(ChannelListenerTest, ConnectionWaitsUntilThereAreDescriptorsAgain) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the sanitizer opens descriptors itself and reports errors when it cannot";
#endif
    ListeningSide side(UnixAddress{path_});
    const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un address = unix_address(path_);
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    // Connected on the loop thread, so that no accept() comes before the limit.
    side.loop().run([&] {
        UniqueFd lowest_free(::dup(client.raw()));
        const rlimit none{static_cast<rlim_t>(lowest_free.raw()), before.rlim_max};
        lowest_free.reset();
        ::setrlimit(RLIMIT_NOFILE, &none);
        EXPECT_EQ(
            ::connect(client.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            0);
    });
    EXPECT_EQ(side.waiting(), 0u);
    side.loop().run([&] { ::setrlimit(RLIMIT_NOFILE, &before); });
    side.clock().advance(std::chrono::seconds(1));
    side.loop().tick();
    EXPECT_NE(side.next_accepted(), nullptr);
}

}  // namespace
}  // namespace ferry::migration
