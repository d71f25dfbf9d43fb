// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "hw/isa/port-bus.h"
#include "util/try.h"

namespace ferry::isa {
namespace {

// Reads give the offset plus 0x10 in each byte; remembers what was asked.
class LoggingPorts final : public PortDevice {
 public:
    explicit LoggingPorts(unsigned widest) : widest_(widest) {}
    unsigned widest() const override { return widest_; }
    uint32_t read(uint16_t offset, unsigned length) override {
        log.push_back(fmt::format("r{}.{}", offset, length));
        if (on_read) on_read();
        uint32_t value = 0;
        for (unsigned i = 0; i < length; ++i) value |= (0x10u + offset + i) << 8 * i;
        return value;
    }
    void write(uint16_t offset, unsigned length, uint32_t value) override {
        log.push_back(fmt::format("w{}.{}={:x}", offset, length, value));
    }

    std::vector<std::string> log;
    std::function<void()> on_read;

 private:
    unsigned widest_;
};

using Log = std::vector<std::string>;

TEST(PortBus, NobodyReadsAllOnesAndDropsWrites) {
    PortBus bus;
    EXPECT_EQ(bus.read(0x80, 1), 0xffu);
    EXPECT_EQ(bus.read(0x80, 2), 0xffffu);
    EXPECT_EQ(bus.read(0x80, 4), 0xffffffffu);
    bus.write(0x80, 4, 1);
}

TEST(PortBus, AccessAsWideAsTheDeviceArrivesWhole) {
    PortBus bus;
    LoggingPorts device(4);
    const auto claim = bus.claim(0x100, 8, device);
    ASSERT_TRUE(claim);
    EXPECT_EQ(bus.read(0x104, 4), 0x17161514u);
    bus.write(0x102, 2, 0xabcd1234);
    EXPECT_EQ(device.log, (Log{"r4.4", "w2.2=1234"}));
}

TEST(PortBus, WiderAccessComesInPiecesLowestFirst) {
    PortBus bus;
    LoggingPorts device(1);
    const auto claim = bus.claim(0x100, 8, device);
    EXPECT_EQ(bus.read(0x100, 4), 0x13121110u);
    bus.write(0x100, 2, 0x1234);
    EXPECT_EQ(device.log, (Log{"r0.1", "r1.1", "r2.1", "r3.1", "w0.1=34", "w1.1=12"}));
}

TEST(PortBus, UnalignedAccessComesInAlignedPieces) {
    PortBus bus;
    LoggingPorts device(4);
    const auto claim = bus.claim(0x100, 8, device);
    EXPECT_EQ(bus.read(0x101, 4), 0x14131211u);
    EXPECT_EQ(device.log, (Log{"r1.1", "r2.2", "r4.1"}));
}

TEST(PortBus, BytesBehindANarrowDeviceAreLookedUpAnew) {
    PortBus bus;
    LoggingPorts low(1), high(1);
    const auto first = bus.claim(0x60, 1, low);
    const auto second = bus.claim(0x62, 1, high);
    EXPECT_EQ(bus.read(0x60, 4), 0xff10ff10u);
    bus.write(0x60, 4, 0x44332211);
    EXPECT_EQ(low.log, (Log{"r0.1", "w0.1=11"}));
    EXPECT_EQ(high.log, (Log{"r0.1", "w0.1=33"}));
}

TEST(PortBus, InnerClaimWinsButDoesNotSplitAWideAccessToTheOuterOne) {
    PortBus bus;
    LoggingPorts host(4), reset(1);
    const auto inner = bus.claim(0xcf9, 1, reset);
    const auto outer = bus.claim(0xcf8, 8, host);
    ASSERT_TRUE(outer);
    bus.write(0xcf8, 4, 0x80000000);
    bus.write(0xcf9, 1, 6);
    EXPECT_EQ(host.log, (Log{"w0.4=80000000"}));
    EXPECT_EQ(reset.log, (Log{"w0.1=6"}));
}

TEST(PortBus, PartialOrEqualOverlapIsRefusedByName) {
    PortBus bus;
    LoggingPorts device(1);
    const auto claim = bus.claim(0x3f8, 8, device);
    for (const uint16_t first : std::array<uint16_t, 3>{0x3f4, 0x3f8, 0x3fc}) {
        const auto refused = bus.claim(first, 8, device);
        ASSERT_FALSE(refused) << first;
        EXPECT_NE(refused.error().message().find("are taken, from 0x3f8 to 0x3ff"),
                  std::string::npos);
    }
}

TEST(PortBus, ClaimsEndWithThePorts) {
    PortBus bus;
    LoggingPorts device(4);
    EXPECT_FALSE(bus.claim(0xffff, 2, device));
    EXPECT_FALSE(bus.claim(0, 0, device));
    const auto all = bus.claim(0, PortBus::kPorts, device);
    ASSERT_TRUE(all);
    EXPECT_EQ(bus.read(0xffff, 2), 0xff00u | ((0x10u + 0xffff) & 0xff));
}

TEST(PortBus, ClaimsAreBounded) {
    PortBus bus;
    LoggingPorts device(1);
    std::vector<util::Registration> held;
    for (uint16_t port = 0; port < PortBus::kMaxClaims; ++port) {
        auto claim = bus.claim(port, 1, device);
        ASSERT_TRUE(claim);
        held.push_back(std::move(*claim));
    }
    const auto refused = bus.claim(0x8000, 1, device);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::LimitExceeded);
}

TEST(PortBus, LettingGoWaitsForTheAccessUnderWay) {
    PortBus bus;
    LoggingPorts device(1);
    std::promise<void> entered, released;
    bool first = true;
    device.on_read = [&] {
        if (!std::exchange(first, false)) return;
        entered.set_value();
        released.get_future().wait();
    };
    auto claim = bus.claim(0x70, 1, device);
    std::jthread reader([&] { EXPECT_EQ(bus.read(0x70, 1), 0x10u); });
    entered.get_future().wait();
    auto let_go = std::async(std::launch::async, [&] { claim->reset(); });
    // New accesses find nobody long before the old one is over.
    while (bus.read(0x70, 4) != UINT32_MAX) std::this_thread::yield();
    EXPECT_EQ(let_go.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
    released.set_value();
    let_go.wait();
}

}  // namespace
}  // namespace ferry::isa
