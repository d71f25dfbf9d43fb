// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "accel/qtest/base64.h"
#include "accel/qtest/protocol.h"
#include "util/try.h"

namespace ferry::qtest {
namespace {

// 64 KiB of memory at 0, all ones elsewhere; ports keep what is written.
class SmallMachine final : public Machine {
 public:
    void memory_read(uint64_t gpa, MutBytes out) override {
        for (size_t i = 0; i < out.size(); ++i) {
            out[i] = gpa + i < memory.size() ? memory[gpa + i] : std::byte{0xff};
        }
    }
    void memory_write(uint64_t gpa, ConstBytes in) override {
        for (size_t i = 0; i < in.size(); ++i) {
            if (gpa + i < memory.size()) memory[gpa + i] = in[i];
        }
    }
    uint32_t port_read(uint16_t port, unsigned length) override {
        last_port_length = length;
        return ports[port];
    }
    void port_write(uint16_t port, unsigned length, uint32_t value) override {
        last_port_length = length;
        ports[port] = value;
    }

    std::vector<std::byte> memory = std::vector<std::byte>(65536);
    std::map<uint16_t, uint32_t> ports;
    unsigned last_port_length = 0;
};

// Two devices with four lines on either side, by their exact names.
class SmallLines final : public InterruptLines {
 public:
    Result<std::string> resolve(std::string_view device, Side side) override {
        if (device == "inputs" && side == Side::In) return std::string("/inputs");
        if (device == "outputs" && side == Side::Out) return std::string("/outputs");
        return make_error(ErrorKind::InvalidArgument, "No device '{}'", device);
    }
    util::Registration watch(const std::string&, Side, Observer watcher) override {
        observer = std::move(watcher);
        return util::Registration([this] { observer = nullptr; });
    }
    Result<> set_input(std::string_view device, unsigned number, bool level) override {
        if (number > 3) return make_error(ErrorKind::InvalidArgument, "{}: no such input", device);
        if (observer) observer(number, level);
        return {};
    }
    Observer observer;
};

// Due every 100 ns, as long as it is wanted.
class Ticks final : public VirtualTimer {
 public:
    explicit Ticks(const VirtualClock& clock) : clock_(clock) {}
    std::optional<int64_t> deadline() override { return next; }
    void time_passed() override {
        if (!next || clock_.now() < *next) return;
        seen.push_back(clock_.now());
        next = *next + 100;
    }
    std::optional<int64_t> next;
    std::vector<int64_t> seen;

 private:
    const VirtualClock& clock_;
};

class ProtocolTest : public ::testing::Test {
 protected:
    SmallMachine machine_;
    VirtualClock clock_;
    SmallLines lines_;
    std::string unasked_;
    Protocol protocol_{{.machine = machine_, .clock = &clock_, .lines = &lines_},
                       [this](std::string line) { unasked_ += line; }};
};

TEST_F(ProtocolTest, MalformedRequestsFail) {
    for (const std::string_view line : {"",
                                        " ",
                                        "nonsense",
                                        "readb",
                                        "readb 0 0",
                                        "readb x",
                                        "readb 0x",
                                        "readb -1",
                                        "readb 08",
                                        "writeb 0",
                                        "inb 0x10000",
                                        "outl 0x10000 0",
                                        "inb",
                                        "read 0",
                                        "read 0 0",
                                        "read 0xffffffffffffffff 2",
                                        "read 0 0x7fffffffffff",
                                        "write 0 1",
                                        "write 0 1 12",
                                        "write 0 1 0xzz",
                                        "write 0 0 0x12",
                                        "b64read 0 0",
                                        "b64write 0 1 x",
                                        "b64write 0 1 ====",
                                        "memset 0 1",
                                        "memset 0 0xffffffffffff 0",
                                        "clock_step x",
                                        "clock_step 1 2",
                                        "clock_set",
                                        "clock_step 0x8000000000000000",
                                        "endianness 1",
                                        "irq_intercept_in",
                                        "irq_intercept_in nothing",
                                        "irq_intercept_in inputs name",
                                        "irq_intercept_out inputs",
                                        "irq_intercept_out outputs name",
                                        "set_irq_in inputs unnamed-gpio-in 0",
                                        "set_irq_in inputs other 0 1",
                                        "set_irq_in inputs unnamed-gpio-in 4 1",
                                        "set_irq_in inputs unnamed-gpio-in 0x100000000 1",
                                        "a b c d e f g h i j"}) {
        EXPECT_TRUE(protocol_.handle(line).starts_with("FAIL ")) << line;
    }
    EXPECT_EQ(protocol_.handle("write 0 1 0x"), "ERR invalid argument size\n");
    EXPECT_EQ(protocol_.handle("readb 0"), "OK 0x0000000000000000\n");
}

TEST_F(ProtocolTest, ValuesAreLittleEndianInMemory) {
    EXPECT_EQ(protocol_.handle("writel 0x10 0x11223344"), "OK\n");
    EXPECT_EQ(machine_.memory[0x10], std::byte{0x44});
    EXPECT_EQ(protocol_.handle("readw 0x12"), "OK 0x0000000000001122\n");
    EXPECT_EQ(protocol_.handle("readq 16"), "OK 0x0000000011223344\n");
    EXPECT_EQ(protocol_.handle("readb 020"), "OK 0x0000000000000044\n");
    EXPECT_EQ(protocol_.handle("endianness"), "OK little\n");
}

TEST_F(ProtocolTest, ShortDataAreFilledWithZerosAndLongDataAreCut) {
    protocol_.handle("memset 0 16 0xaa");
    EXPECT_EQ(protocol_.handle("write 0 4 0x0102"), "OK\n");
    EXPECT_EQ(protocol_.handle("write 8 1 0x0304"), "OK\n");
    EXPECT_EQ(protocol_.handle("read 0 10"), "OK 0x01020000aaaaaaaa03aa\n");
}

TEST_F(ProtocolTest, Base64MovesWhatHexMoves) {
    EXPECT_EQ(protocol_.handle("b64write 0 5 aGVsbG8="), "OK\n");
    EXPECT_EQ(protocol_.handle("read 0 5"), "OK 0x68656c6c6f\n");
    EXPECT_EQ(protocol_.handle("b64read 0 5"), "OK aGVsbG8=\n");
}

TEST_F(ProtocolTest, LineMayEndInCarriageReturn) {
    EXPECT_EQ(protocol_.handle("readb 0\r"), "OK 0x0000000000000000\n");
}

TEST_F(ProtocolTest, PortsHaveThreeWidths) {
    EXPECT_EQ(protocol_.handle("outw 0xcf8 0x1234"), "OK\n");
    EXPECT_EQ(machine_.last_port_length, 2U);
    EXPECT_EQ(protocol_.handle("inl 0xcf8"), "OK 0x1234\n");
    EXPECT_EQ(machine_.last_port_length, 4U);
    EXPECT_EQ(protocol_.handle("inb 0x70"), "OK 0x0000\n");
    EXPECT_EQ(machine_.last_port_length, 1U);
}

TEST_F(ProtocolTest, ClockNeverGoesBackwards) {
    EXPECT_EQ(protocol_.handle("clock_step 100"), "OK 100\n");
    EXPECT_EQ(protocol_.handle("clock_step"), "OK 100\n");
    EXPECT_EQ(protocol_.handle("clock_set 99"), "FAIL 100\n");
    EXPECT_EQ(protocol_.handle("clock_set 0x7fffffffffffffff"), "OK 9223372036854775807\n");
    EXPECT_EQ(protocol_.handle("clock_step 1"), "FAIL 9223372036854775807\n");
}

TEST_F(ProtocolTest, ClockStopsAtTimersOnTheWay) {
    Ticks ticks(clock_);
    const auto registered = clock_.add_timer(ticks);
    EXPECT_EQ(protocol_.handle("clock_step"), "OK 0\n");
    ticks.next = 70;
    EXPECT_EQ(protocol_.handle("clock_step"), "OK 70\n");
    EXPECT_EQ(protocol_.handle("clock_step"), "OK 170\n");
    EXPECT_EQ(protocol_.handle("clock_set 400"), "OK 400\n");
    EXPECT_EQ(ticks.seen, (std::vector<int64_t>{70, 170, 270, 370}));
    ticks.next.reset();
    EXPECT_EQ(protocol_.handle("clock_step"), "OK 400\n");
}

TEST_F(ProtocolTest, LinesAreReportedUntilTheClientLeaves) {
    EXPECT_EQ(protocol_.handle("irq_intercept_in inputs"), "OK\n");
    EXPECT_EQ(protocol_.handle("irq_intercept_in inputs"), "OK\n");
    EXPECT_EQ(protocol_.handle("irq_intercept_out outputs"),
              "FAIL IRQ intercept already enabled\n");
    EXPECT_EQ(protocol_.handle("set_irq_in inputs unnamed-gpio-in 2 1"), "OK\n");
    EXPECT_EQ(protocol_.handle("set_irq_in inputs unnamed-gpio-in 3 0"), "OK\n");
    EXPECT_EQ(unasked_, "IRQ raise 2\nIRQ lower 3\n");
    protocol_.client_left();
    EXPECT_FALSE(lines_.observer);
    EXPECT_EQ(protocol_.handle("irq_intercept_out outputs"), "OK\n");
}

TEST(ProtocolParts, WithoutThemTheCommandsAreRefused) {
    SmallMachine machine;
    Protocol protocol({.machine = machine}, [](const std::string&) {});
    EXPECT_EQ(protocol.handle("clock_step 1"), "FAIL Unknown command 'clock_step'\n");
    EXPECT_EQ(protocol.handle("clock_set 1"), "FAIL Unknown command 'clock_set'\n");
    EXPECT_TRUE(protocol.handle("irq_intercept_in inputs").starts_with("FAIL "));
    EXPECT_TRUE(protocol.handle("set_irq_in inputs unnamed-gpio-in 0 1").starts_with("FAIL "));
}

TEST(Base64, AllLengthsOfTheLastGroupComeBack) {
    std::vector<std::byte> bytes;
    for (unsigned length = 0; length < 70; ++length) {
        const auto back = base64_decode(base64_encode(bytes));
        ASSERT_TRUE(back);
        EXPECT_EQ(*back, bytes);
        bytes.push_back(static_cast<std::byte>(length * 37));
    }
}

}  // namespace
}  // namespace ferry::qtest
