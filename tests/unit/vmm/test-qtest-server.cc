// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "system/vmm/board.h"
#include "system/vmm/qtest-server.h"
#include "util/syscall.h"

namespace ferry::vmm {
namespace {

const QtestLog kNoLog{.to = QtestLog::To::Nowhere, .path = {}};

class QtestServerTest : public ::testing::Test {
 protected:
    QtestServerTest() {
        Options options;
        options.ram_bytes = 1 << 20;
        board_ = std::move(*Board::create(options));
        std::array<int, 2> ends{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
        client_ = UniqueFd(ends[0]);
        auto server = QtestServer::start({.kind = util::CharAddress::Kind::Fd, .fd = ends[1]},
                                         kNoLog, parts(), clock_);
        EXPECT_TRUE(server);
        server_ = std::move(*server);
    }
    qtest::Protocol::Parts parts() {
        return {.machine = *board_, .clock = &board_->clock(), .lines = &board_->lines()};
    }
    void send(std::string_view text) {
        ConstBytes rest = bytes_of(text);
        while (!rest.empty()) {
            const auto sent = util::write_fd(client_.borrow(), rest, "write");
            ASSERT_TRUE(sent);
            rest = rest.subspan(*sent);
        }
    }
    // Up to and with that many lines; less only when the server hangs up.
    std::string receive(size_t lines) {
        std::string text;
        while (static_cast<size_t>(std::ranges::count(text, '\n')) < lines) {
            std::array<std::byte, 256> chunk{};
            const auto got = util::read_fd(client_.borrow(), chunk, "read");
            if (!got || *got == 0) break;
            for (size_t i = 0; i < *got; ++i) text += static_cast<char>(chunk[i]);
        }
        return text;
    }

    util::SystemClock clock_;
    std::unique_ptr<Board> board_;
    UniqueFd client_;
    std::unique_ptr<QtestServer> server_;
};

TEST_F(QtestServerTest, EndsWhileAClientIsConnected) {
    server_.reset();
    EXPECT_EQ(receive(1), "");
}

TEST_F(QtestServerTest, EndlessLineEndsTheConnection) {
    const std::string chunk(1 << 20, 'x');
    size_t sent = 0;
    while (sent <= qtest::Protocol::kMaxLine) {
        const auto done = util::write_fd(client_.borrow(), bytes_of(chunk), "write");
        if (!done) break;  // the server has hung up already
        sent += *done;
    }
    EXPECT_EQ(receive(2), "FAIL Line too long\n");
}

TEST_F(QtestServerTest, RequestsMayArriveInPiecesAndInHeaps) {
    send("writeb 0 0x5");
    send("a\nreadb 0\nreadb");
    EXPECT_EQ(receive(2), "OK\nOK 0x000000000000005a\n");
    send(" 1\n");
    EXPECT_EQ(receive(1), "OK 0x0000000000000000\n");
}

TEST_F(QtestServerTest, LinesChangeUnaskedAndBeforeTheReply) {
    const isa::IrqLine wire = board_->lines().connect("/machine/x", 0, 5);
    send("irq_intercept_in ioapic\n");
    EXPECT_EQ(receive(1), "OK\n");
    wire(true);
    EXPECT_EQ(receive(1), "IRQ raise 5\n");
    send("set_irq_in ioapic unnamed-gpio-in 6 1\n");
    EXPECT_EQ(receive(2), "IRQ raise 6\nOK\n");
}

TEST_F(QtestServerTest, ClientThatReadsNoReportsIsDisconnected) {
    const isa::IrqLine wire = board_->lines().connect("/machine/x", 0, 5);
    send("irq_intercept_in ioapic\n");
    EXPECT_EQ(receive(1), "OK\n");
    // More than any socket buffer and the server's own list hold together.
    constexpr int kFlips = 1 << 20;
    for (int i = 0; i < kFlips; ++i) wire(i % 2 == 0);
    size_t lines = 0;
    for (std::string text = receive(1); !text.empty(); text = receive(1)) {
        lines += static_cast<size_t>(std::ranges::count(text, '\n'));
    }
    EXPECT_LT(lines, size_t{kFlips});
}

TEST_F(QtestServerTest, MissingSocketIsRefusedByName) {
    const util::CharAddress address{.kind = util::CharAddress::Kind::Unix,
                                    .path = "/nonexistent/socket"};
    const auto server = QtestServer::start(address, kNoLog, parts(), clock_);
    ASSERT_FALSE(server);
    EXPECT_NE(server.error().message().find("/nonexistent/socket"), std::string::npos);
}

}  // namespace
}  // namespace ferry::vmm
