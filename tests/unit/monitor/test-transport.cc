// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "monitor/qmp-server.h"
#include "monitor/transport.h"
#include "tests/support/fake-clock.h"
#include "tests/support/test-loop.h"
#include "tests/unit/monitor/qmp-client.h"

namespace ferry::monitor {
namespace {

using test::QmpClient;

// Sends back what it gets and counts what happens.
class Echo final : public MonitorUser {
 public:
    void opened() override { ++opened_count; }
    void received(ConstBytes bytes, std::vector<UniqueFd> fds) override {
        received_fds += fds.size();
        std::string text;
        for (const std::byte byte : bytes) text += static_cast<char>(byte);
        transport->send(text);
    }
    void drained() override { ++drained_count; }
    void closed() override { ++closed_count; }

    MonitorTransport* transport = nullptr;
    int opened_count = 0, closed_count = 0, drained_count = 0;
    size_t received_fds = 0;
};

class TransportTest : public testing::Test {
 protected:
    ~TransportTest() override {
        loop.run([&] { transport.reset(); });
    }
    void start(Result<std::unique_ptr<MonitorTransport>> made) {
        ASSERT_TRUE(made) << made.error().message();
        loop.run([&] {
            transport = std::move(*made);
            echo.transport = transport.get();
            transport->start(echo);
        });
    }
    QmpClient start_connected() {
        auto [ours, theirs] = test::socket_pair();
        start(make_connected_transport(loop, std::move(theirs)));
        return QmpClient(std::move(ours));
    }

    test::FakeClock clock;
    test::TestLoop loop{clock};
    Echo echo;
    std::unique_ptr<MonitorTransport> transport;
};

TEST_F(TransportTest, ClientThatNeverReadsIsDisconnectedAtTheLimit) {
    QmpClient client = start_connected();
    const std::string block(64 * 1024, 'x');
    size_t largest = 0;
    ASSERT_TRUE(loop.wait_for([&] { return echo.opened_count == 1; }));
    loop.run([&] {
        for (size_t sent = 0; sent < 2 * kMaxOutputBytes; sent += block.size()) {
            transport->send(block);
            largest = std::max(largest, transport->backlog_bytes());
        }
    });
    EXPECT_LE(largest, kMaxOutputBytes);
    EXPECT_TRUE(loop.wait_for([&] { return echo.closed_count == 1; }));
    EXPECT_TRUE(client.until("never").ends_with("<end>"));
}

TEST_F(TransportTest, MoreThanTheSocketHoldsArrivesAsTheClientReads) {
    QmpClient client = start_connected();
    const std::string text = std::string(4 * 1024 * 1024, 'x') + "last";
    ASSERT_TRUE(loop.wait_for([&] { return echo.opened_count == 1; }));
    loop.run([&] { transport->send(text); });
    EXPECT_EQ(client.until("last"), text);
    EXPECT_TRUE(loop.wait_for([&] { return echo.drained_count == 1; }));
}

TEST_F(TransportTest, WhatArrivesWhileNobodyReadsIsKept) {
    QmpClient client = start_connected();
    ASSERT_TRUE(loop.wait_for([&] { return echo.opened_count == 1; }));
    loop.run([&] { transport->set_reading(MonitorTransport::Reading::Off); });
    client.send("hello\r\n");
    loop.run([&] { transport->set_reading(MonitorTransport::Reading::On); });
    EXPECT_EQ(client.line(), "hello");
}

TEST_F(TransportTest, DescriptorsComeWithTheirBytes) {
    QmpClient client = start_connected();
    auto [one, two] = test::socket_pair();
    const BorrowedFd fds[] = {one.borrow(), two.borrow()};
    client.send_with_fds("x\r\n", fds);
    EXPECT_EQ(client.line(), "x");
    loop.run([&] { EXPECT_EQ(echo.received_fds, 2U); });
}

TEST_F(TransportTest, TransportMayGoWhileItsClientIsThere) {
    QmpClient client = start_connected();
    loop.run([&] { transport.reset(); });
    EXPECT_EQ(client.line(), "<end>");
}

class ListeningTest : public TransportTest {
 protected:
    ListeningTest() {
        std::string pattern = (std::filesystem::temp_directory_path() / "ferry-XXXXXX").string();
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
        path = directory + "/monitor";
    }
    ~ListeningTest() override {
        loop.run([&] { transport.reset(); });
        std::filesystem::remove_all(directory);
    }
    void listen() {
        auto address = util::parse_char_address("unix:" + path + ",server=on,wait=off");
        ASSERT_TRUE(address);
        start(open_monitor_transport(loop, *address));
    }
    QmpClient connect() {
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const sockaddr_un address = unix_address();
        EXPECT_EQ(::connect(fd.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
                  0);
        return QmpClient(std::move(fd));
    }
    sockaddr_un unix_address() const {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        return address;
    }

    std::string directory;
    std::string path;
};

TEST_F(ListeningTest, NextClientIsServedWhenTheFirstHasLeft) {
    listen();
    QmpClient first = connect();
    first.send("a\r\n");
    EXPECT_EQ(first.line(), "a");
    QmpClient second = connect();
    second.send("b\r\n");
    loop.run([&] { EXPECT_EQ(echo.opened_count, 1); });
    first.close();
    EXPECT_EQ(second.line(), "b");
    loop.run([&] { EXPECT_EQ(echo.closed_count, 1); });
}

TEST_F(ListeningTest, SocketOfAnEarlierProcessIsReplaced) {
    {
        UniqueFd left_behind(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const sockaddr_un address = unix_address();
        ASSERT_EQ(
            ::bind(left_behind.raw(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
    }
    EXPECT_TRUE(std::filesystem::exists(path));
    listen();
    QmpClient client = connect();
    client.send("a\r\n");
    EXPECT_EQ(client.line(), "a");
}

TEST_F(ListeningTest, EmptyFileAtThePathIsReplacedButNoOther) {
    std::ofstream(path) << "precious";
    const auto address = util::parse_char_address("unix:" + path + ",server=on,wait=off");
    EXPECT_FALSE(open_monitor_transport(loop, *address));
    EXPECT_TRUE(std::filesystem::is_regular_file(path));
    std::ofstream(path, std::ios::trunc).close();
    EXPECT_TRUE(open_monitor_transport(loop, *address));
}

TEST_F(ListeningTest, PathIsRemovedAtTheEnd) {
    listen();
    loop.run([&] { transport.reset(); });
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ListeningTest, ReconnectedClientIsGreetedAndMustNegotiateAgain) {
    CommandTable commands;
    std::optional<QmpServer> server;
    loop.run([&] {
        server.emplace(loop, commands, Json::object());
        const auto address = util::parse_char_address("unix:" + path + ",server=on,wait=off");
        server->add(*open_monitor_transport(loop, *address), Layout::Line);
    });
    QmpClient first = connect();
    first.negotiate();
    first.send("{'half");
    first.close();
    QmpClient second = connect();
    EXPECT_TRUE(second.next().contains("QMP"));
    EXPECT_EQ(second.call({{"execute", "stop"}})["error"]["class"], "CommandNotFound");
    EXPECT_TRUE(second.call({{"execute", "qmp_capabilities"}}).contains("return"));
    loop.run([&] { server.reset(); });
}

TEST_F(ListeningTest, ConnectingToNobodyIsAnErrorWithTheName) {
    const auto address = util::parse_char_address("unix:" + path);
    const auto made = open_monitor_transport(loop, *address);
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().message().find(path), std::string::npos);
}

TEST_F(TransportTest, TcpClientIsServed) {
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::listen(listener.raw(), 1), 0);
    sockaddr_storage where{};
    socklen_t length = sizeof where;
    ASSERT_EQ(::getsockname(listener.raw(), reinterpret_cast<sockaddr*>(&where), &length), 0);
    start(make_listening_transport(loop, std::move(listener), ""));
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(fd.raw(), reinterpret_cast<sockaddr*>(&where), length), 0);
    QmpClient client(std::move(fd));
    client.send("a\r\n");
    EXPECT_EQ(client.line(), "a");
}

TEST_F(TransportTest, WhatTakesNoInputIsRefused) {
    for (const char* text : {"null", "file:/dev/null"}) {
        const auto made = open_monitor_transport(loop, *util::parse_char_address(text));
        ASSERT_FALSE(made);
        EXPECT_NE(made.error().message().find(text), std::string::npos);
    }
}

}  // namespace
}  // namespace ferry::monitor
