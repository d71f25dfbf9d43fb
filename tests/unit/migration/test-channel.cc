// SPDX-License-Identifier: BSD-2-Clause
// One suite over all transports that carry bytes from one end to the other while both are open.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <csignal>

#include "tests/unit/migration/test-channel-support.h"

namespace ferry::migration {
namespace {

enum class Transport { Memory, SocketPair, Unix, Tcp4, Tcp6, Pipe, Fifo };

struct Ends {
    std::unique_ptr<MigrationChannel> sender;
    std::unique_ptr<MigrationChannel> receiver;
};

Ends socket_pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    return {must(channel_from_fd(UniqueFd(fds[0]), "fd:a", FdUse::Outgoing)),
            must(channel_from_fd(UniqueFd(fds[1]), "fd:b", FdUse::Incoming))};
}

Ends pipe_pair() {
    int fds[2];
    EXPECT_EQ(::pipe(fds), 0);
    return {must(channel_from_fd(UniqueFd(fds[1]), "fd:out", FdUse::Outgoing)),
            must(channel_from_fd(UniqueFd(fds[0]), "fd:in", FdUse::Incoming))};
}

class Channel : public testing::TestWithParam<Transport> {
 protected:
    void SetUp() override {
        // What an embedder that knows nothing of pipes has.
        ASSERT_EQ(std::signal(SIGPIPE, SIG_DFL), SIG_DFL);
        switch (GetParam()) {
            case Transport::Memory:
                std::tie(ends_.sender, ends_.receiver) = make_memory_channel_pair();
                break;
            case Transport::SocketPair: ends_ = socket_pair(); break;
            case Transport::Unix: connect(UnixAddress{directory_ / "socket"}); break;
            case Transport::Tcp4: connect(TcpAddress{"127.0.0.1", "0"}); break;
            case Transport::Tcp6: connect(TcpAddress{"::1", "0"}); break;
            case Transport::Pipe: ends_ = pipe_pair(); break;
            case Transport::Fifo: open_fifo(); break;
        }
    }

    // A stream that no transport's buffers hold. One buffer many times: 64 MiB cost 1 MiB.
    static std::vector<ConstBytes> endless() {
        static const std::string block(size_t{1} << 20, 'x');
        return std::vector<ConstBytes>(64, bytes_of(block));
    }

 private:
    void connect(const MigrationAddress& address) {
        ListeningSide destination(address);
        if (destination.error()) {
            GTEST_SKIP() << "no such sockets here: " << destination.error()->message();
        }
        ends_.sender = must(connect_to(destination.address()));
        ends_.receiver = destination.next_accepted();
    }
    void open_fifo() {
        const std::string path = directory_ / "fifo";
        ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
        ends_.receiver = must(open_incoming_channel(FileAddress{path}));
        ends_.sender = must(connect_to(FileAddress{path}));
    }

    const DescriptorsAreClosed descriptors_;
    const TemporaryDirectory directory_;

 protected:
    Ends ends_;
};

class OneWayChannel : public Channel {};
class DuplexChannel : public Channel {};

TEST_P(Channel, BlockedReadIsWokenByShutdownWithItsReason) {
    Error error(ErrorKind::Internal, "");
    BlockingCall read([&] {
        std::byte byte{};
        error = error_of(ends_.receiver->read_some({&byte, 1}));
    });
    read.wait_until_blocked();
    ends_.receiver->shutdown(Error(ErrorKind::Cancelled, "the user cancelled"));
    read.join();
    EXPECT_EQ(error.kind(), ErrorKind::Cancelled);
    EXPECT_EQ(error.text(), "the user cancelled");
}

TEST_P(Channel, BlockedWriteIsWokenByShutdownWithItsReason) {
    Error error(ErrorKind::Internal, "");
    BlockingCall write([&] { error = error_of(ends_.sender->write_all(endless())); });
    while (ends_.sender->bytes_written() == 0) std::this_thread::yield();
    write.wait_until_blocked();
    ends_.sender->shutdown(Error(ErrorKind::PeerFailed, "the peer is silent"));
    write.join();
    EXPECT_EQ(error.kind(), ErrorKind::PeerFailed);
    EXPECT_EQ(error.text(), "the peer is silent");
}

TEST_P(Channel, AfterShutdownEveryCallFailsWithTheFirstReason) {
    for (MigrationChannel* end : {ends_.sender.get(), ends_.receiver.get()}) {
        end->shutdown(Error(ErrorKind::Cancelled, "first"));
        end->shutdown(Error(ErrorKind::PeerFailed, "second"));
        std::byte byte{};
        EXPECT_EQ(error_of(end->read_some({&byte, 1})).text(), "first");
        EXPECT_EQ(error_of(write_text(*end, "x")).text(), "first");
        EXPECT_EQ(error_of(write_text(*end, "")).text(), "first");
        EXPECT_EQ(error_of(end->finish_writing()).text(), "first");
    }
}

TEST_P(Channel, BlockedWriteEndsWhenThePeerGoes) {
    Error error(ErrorKind::Internal, "");
    BlockingCall write([&] { error = error_of(ends_.sender->write_all(endless())); });
    while (ends_.sender->bytes_written() == 0) std::this_thread::yield();
    write.wait_until_blocked();
    ends_.receiver.reset();
    write.join();
    EXPECT_EQ(error.kind(), ErrorKind::PeerClosed) << error.message();
    EXPECT_NE(error.message().find(ends_.sender->name()), std::string::npos) << error.message();
}

TEST_P(Channel, WritingToAPeerThatIsGoneIsPeerClosedAndRaisesNoSignal) {
    ends_.receiver.reset();
    const Error error = error_of(ends_.sender->write_all(endless()));
    EXPECT_EQ(error.kind(), ErrorKind::PeerClosed) << error.message();
    sigset_t pending{};
    ::sigpending(&pending);
    EXPECT_EQ(::sigismember(&pending, SIGPIPE), 0);
    sigset_t blocked{};
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    EXPECT_EQ(::sigismember(&blocked, SIGPIPE), 0);
}

TEST_P(Channel, WhatAPeerSentBeforeItWentIsStillRead) {
    expect_ok(write_text(*ends_.sender, "last words"));
    ends_.sender.reset();
    std::vector<std::byte> buffer(100);
    std::string got;
    Result<size_t> count = size_t{1};
    while ((count = ends_.receiver->read_some(buffer)) && *count != 0) {
        got.append(reinterpret_cast<const char*>(buffer.data()), *count);
    }
    EXPECT_EQ(got, "last words");
    // A descriptor cannot tell a peer that finished from one that died; memory can.
    if (GetParam() == Transport::Memory) {
        EXPECT_EQ(error_of(count).kind(), ErrorKind::PeerClosed);
    } else {
        EXPECT_TRUE(count.has_value());
    }
}

TEST_P(Channel, WritingAfterTheEndIsRefused) {
    expect_ok(ends_.sender->finish_writing());
    expect_ok(ends_.sender->finish_writing());
    EXPECT_EQ(error_of(write_text(*ends_.sender, "x")).kind(), ErrorKind::InvalidState);
}

TEST_P(OneWayChannel, RefusesTheOtherWay) {
    EXPECT_FALSE(ends_.sender->features().duplex);
    std::byte byte{};
    EXPECT_EQ(error_of(ends_.sender->read_some({&byte, 1})).kind(), ErrorKind::InvalidState);
    EXPECT_EQ(error_of(write_text(*ends_.receiver, "x")).kind(), ErrorKind::InvalidState);
}

TEST_P(Channel, PartsLargerThanItsBuffersArriveInOrder) {
    const std::string_view text = long_text(size_t{5} << 20);
    // Empty parts, parts of one byte, more parts than one call takes, and large ones.
    std::vector<ConstBytes> parts;
    ConstBytes rest = bytes_of(text);
    for (size_t i = 0; i < 2000; ++i) {
        parts.push_back(rest.first(i % 7));
        rest = rest.subspan(i % 7);
    }
    parts.push_back(rest.first(rest.size() / 2));
    parts.emplace_back();
    parts.push_back(rest.subspan(rest.size() / 2));

    Result<> written;
    Result<> finished;
    BlockingCall write([&] {
        written = ends_.sender->write_all(parts);
        finished = ends_.sender->finish_writing();
    });
    const auto got = read_to_end(*ends_.receiver, 70'001);
    write.join();
    expect_ok(written);
    expect_ok(finished);
    ASSERT_TRUE(got) << got.error().message();
    EXPECT_TRUE(*got == text);
}

TEST_P(Channel, SingleBytesCanBeRead) {
    const std::string_view text = long_text(1000);
    expect_ok(write_text(*ends_.sender, text));
    expect_ok(ends_.sender->finish_writing());
    EXPECT_EQ(must(read_to_end(*ends_.receiver, 1)), text);
}

TEST_P(Channel, EndOfStreamStays) {
    expect_ok(ends_.sender->finish_writing());
    std::byte byte{};
    EXPECT_EQ(must(ends_.receiver->read_some({&byte, 1})), 0u);
    EXPECT_EQ(must(ends_.receiver->read_some({&byte, 1})), 0u);
}

TEST_P(Channel, CountersTellWhatMoved) {
    expect_ok(write_text(*ends_.sender, "four"));
    expect_ok(write_text(*ends_.sender, ""));
    EXPECT_EQ(ends_.sender->bytes_written(), 4u);
    EXPECT_EQ(ends_.receiver->bytes_read(), 0u);
    std::byte bytes[3];
    EXPECT_EQ(must(ends_.receiver->read_some(bytes)), 3u);
    EXPECT_EQ(ends_.receiver->bytes_read(), 3u);
    EXPECT_EQ(ends_.receiver->bytes_written(), 0u);
    EXPECT_EQ(ends_.sender->bytes_read(), 0u);
}

TEST_P(Channel, CountersOfABlockedWriteTellWhatWentAlready) {
    Error error(ErrorKind::Internal, "");
    BlockingCall write([&] { error = error_of(ends_.sender->write_all(endless())); });
    while (ends_.sender->bytes_written() == 0) std::this_thread::yield();
    std::vector<std::byte> buffer(1000);
    EXPECT_EQ(must(ends_.receiver->read_some(buffer)), 1000u);
    ends_.sender->shutdown(Error(ErrorKind::Cancelled, "enough"));
    write.join();
    EXPECT_EQ(error.text(), "enough");
    EXPECT_GE(ends_.sender->bytes_written(), 1000u);
    EXPECT_LT(ends_.sender->bytes_written(), size_t{64} << 20);
}

TEST_P(DuplexChannel, AnswersAfterTheEndOfTheStream) {
    EXPECT_TRUE(ends_.sender->features().duplex);
    expect_ok(write_text(*ends_.sender, "question"));
    expect_ok(ends_.sender->finish_writing());
    EXPECT_EQ(must(read_to_end(*ends_.receiver)), "question");
    expect_ok(write_text(*ends_.receiver, "answer"));
    expect_ok(ends_.receiver->finish_writing());
    EXPECT_EQ(must(read_to_end(*ends_.sender)), "answer");
}

TEST_P(DuplexChannel, BothWaysMoveAtTheSameTime) {
    const std::string_view there = long_text(size_t{3} << 20);
    const std::string_view back = long_text(size_t{2} << 20);
    const auto send = [](MigrationChannel& end, std::string_view text) {
        expect_ok(write_text(end, text));
        expect_ok(end.finish_writing());
    };
    BlockingCall send_there([&] { send(*ends_.sender, there); });
    BlockingCall send_back([&] { send(*ends_.receiver, back); });
    std::string got_back;
    BlockingCall receive_back([&] { got_back = must(read_to_end(*ends_.sender)); });
    EXPECT_TRUE(must(read_to_end(*ends_.receiver)) == there);
    receive_back.join();
    EXPECT_TRUE(got_back == back);
}

std::string transport_name(const testing::TestParamInfo<Transport>& param) {
    switch (param.param) {
        case Transport::Memory: return "Memory";
        case Transport::SocketPair: return "SocketPair";
        case Transport::Unix: return "Unix";
        case Transport::Tcp4: return "Tcp4";
        case Transport::Tcp6: return "Tcp6";
        case Transport::Pipe: return "Pipe";
        case Transport::Fifo: return "Fifo";
    }
    return "";
}

const auto kDuplex = testing::Values(Transport::Memory, Transport::SocketPair, Transport::Unix,
                                     Transport::Tcp4, Transport::Tcp6);
const auto kOneWay = testing::Values(Transport::Pipe, Transport::Fifo);
INSTANTIATE_TEST_SUITE_P(Duplex, Channel, kDuplex, transport_name);
INSTANTIATE_TEST_SUITE_P(OneWay, Channel, kOneWay, transport_name);
INSTANTIATE_TEST_SUITE_P(Transports, DuplexChannel, kDuplex, transport_name);
INSTANTIATE_TEST_SUITE_P(Transports, OneWayChannel, kOneWay, transport_name);

}  // namespace
}  // namespace ferry::migration
