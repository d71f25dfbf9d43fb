// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

#include "hw/pci/host-bridge.h"
#include "hw/pci/pci.h"
#include "util/try.h"

namespace ferry::pci {
namespace {

// One BAR of plain bytes.
class MemoryDevice final : public PciDevice {
 public:
    MemoryDevice(uint64_t gpa, size_t size) : gpa_(gpa), bytes_(size) {}
    std::string_view name() const override { return "memory"; }
    uint32_t config_read(uint16_t offset, unsigned) override { return 0x100u + offset; }
    void config_write(uint16_t offset, unsigned, uint32_t value) override {
        last_config = offset + value;
    }
    std::vector<MemoryBar> memory_bars() override { return {{3, gpa_, bytes_.size()}}; }
    std::vector<PortBar> port_bars() override {
        if (port == 0) return {};
        return {{4, port, static_cast<uint32_t>(bytes_.size())}};
    }
    Result<> bar_read(unsigned bar, uint64_t offset, MutBytes out) override {
        if (held) {
            entered.set_value();
            released.get_future().wait();
        }
        if (fail) return make_error(ErrorKind::Internal, "bar {}", bar);
        std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
        return {};
    }
    Result<> bar_write(unsigned, uint64_t offset, ConstBytes in) override {
        std::ranges::copy(in, bytes_.begin() + static_cast<ptrdiff_t>(offset));
        return {};
    }

    bool fail = false;
    bool held = false;
    uint16_t port = 0;
    std::promise<void> entered, released;
    uint32_t last_config = 0;

 private:
    uint64_t gpa_;
    std::vector<std::byte> bytes_;
};

TEST(PciBus, PortsAreASpaceOfTheirOwn) {
    PciBus bus;
    auto device = std::make_shared<MemoryDevice>(0xc000, 8);
    auto plugged = bus.plug({3, 0}, device);
    ASSERT_TRUE(plugged);
    std::array<std::byte, 4> word{};
    EXPECT_FALSE(bus.port_read(0xc000, word));
    device->port = 0xc000;
    word.fill(std::byte{0x5a});
    EXPECT_TRUE(bus.port_write(0xc004, word));
    EXPECT_FALSE(bus.port_write(0xc008, word));
    word.fill(std::byte{0});
    EXPECT_TRUE(bus.port_read(0xc004, word));
    EXPECT_EQ(word[3], std::byte{0x5a});
    EXPECT_TRUE(bus.port_read(0xc006, word));  // leaves the BAR
    EXPECT_EQ(word[0], std::byte{0xff});
}

TEST(PciAddress, RefusesWhatIsNoAddress) {
    for (const char* text :
         {"", ".", "20", "3.8", "3.", "x", "3.0.0", "01:03.0", "0x", "-1", "3 "}) {
        EXPECT_FALSE(PciAddress::parse(text)) << text;
    }
}

TEST(PciAddress, KnowsTheUsualSpellings) {
    const PciAddress three{3, 0};
    for (const char* text :
         {"3", "03", "3.0", "03.0", "0x3", "0x3.0x0", "00:03.0", "0000:00:03.0"}) {
        const auto parsed = PciAddress::parse(text);
        ASSERT_TRUE(parsed) << text;
        EXPECT_EQ(*parsed, three) << text;
    }
    EXPECT_EQ(*PciAddress::parse("1f.7"), (PciAddress{31, 7}));
    EXPECT_EQ((PciAddress{31, 7}).path(), "0000:00:1f.7");
}

TEST(PciBus, AddressIsTakenOnce) {
    PciBus bus;
    const auto first = bus.plug({3, 0}, std::make_shared<MemoryDevice>(0x1000, 16));
    ASSERT_TRUE(first);
    const auto second = bus.plug({3, 0}, std::make_shared<MemoryDevice>(0x2000, 16));
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().kind(), ErrorKind::InvalidArgument);
    EXPECT_FALSE(bus.plug({32, 0}, std::make_shared<MemoryDevice>(0x2000, 16)));
}

TEST(PciBus, FirstFreeSkipsDevicesWithAnyFunction) {
    PciBus bus;
    const auto a = bus.plug({2, 0}, std::make_shared<MemoryDevice>(0x1000, 16));
    const auto b = bus.plug({3, 1}, std::make_shared<MemoryDevice>(0x2000, 16));
    EXPECT_EQ(*bus.first_free(2), (PciAddress{4, 0}));
    EXPECT_EQ(*bus.first_free(0), (PciAddress{0, 0}));
    std::vector<util::Registration> all;
    for (uint8_t i = 4; i < 32; ++i) {
        all.push_back(*bus.plug({i, 0}, std::make_shared<MemoryDevice>(0, 16)));
    }
    EXPECT_FALSE(bus.first_free(2));
}

TEST(PciBus, NobodyAnswersWithAllOnes) {
    PciBus bus;
    EXPECT_EQ(bus.config_read({5, 0}, 0, 4), 0xffffffffu);
    EXPECT_EQ(bus.config_read({5, 0}, 0, 2), 0xffffu);
    EXPECT_EQ(bus.config_read({5, 0}, 0, 1), 0xffu);
    bus.config_write({5, 0}, 0, 4, 1);
    std::byte byte{0x12};
    EXPECT_FALSE(bus.memory_read(0x1000, MutBytes(&byte, 1)));
    EXPECT_FALSE(bus.memory_write(0x1000, ConstBytes(&byte, 1)));
}

TEST(PciBus, AccessesFindTheirBar) {
    PciBus bus;
    auto low = std::make_shared<MemoryDevice>(0x1000, 16);
    auto high = std::make_shared<MemoryDevice>(0x1010, 16);
    const auto a = bus.plug({2, 0}, low);
    const auto b = bus.plug({3, 0}, high);
    const std::byte sent[2] = {std::byte{1}, std::byte{2}};
    EXPECT_TRUE(bus.memory_write(0x1012, sent));
    std::byte got[2];
    EXPECT_TRUE(bus.memory_read(0x1012, got));
    EXPECT_EQ(got[1], std::byte{2});
    EXPECT_TRUE(bus.memory_read(0x1002, got));
    EXPECT_EQ(got[1], std::byte{0});
    EXPECT_FALSE(bus.memory_read(0xfff, got));
    EXPECT_FALSE(bus.memory_read(0x1020, got));
    EXPECT_EQ(bus.config_read({3, 0}, 8, 4), 0x108u);
    bus.config_write({2, 0}, 4, 2, 7);
    EXPECT_EQ(low->last_config, 11u);
}

TEST(PciBus, FailingAndOverlongReadsGiveAllOnes) {
    PciBus bus;
    auto device = std::make_shared<MemoryDevice>(0x1000, 16);
    const auto plugged = bus.plug({2, 0}, device);
    std::byte got[4] = {};
    EXPECT_TRUE(bus.memory_read(0x100e, got));  // two bytes too many
    EXPECT_EQ(got[0], std::byte{0xff});
    EXPECT_TRUE(bus.memory_write(0x100e, got));  // goes nowhere
    device->fail = true;
    std::byte again[4] = {};
    EXPECT_TRUE(bus.memory_read(0x1000, again));
    EXPECT_EQ(again[3], std::byte{0xff});
}

TEST(PciBus, RemovalWaitsForTheAccessUnderWay) {
    PciBus bus;
    auto device = std::make_shared<MemoryDevice>(0x1000, 16);
    device->held = true;
    auto plugged = bus.plug({2, 0}, device);
    ASSERT_TRUE(plugged);
    std::atomic<bool> answered = false;
    std::jthread guest([&] {
        std::byte byte;
        bus.memory_read(0x1000, MutBytes(&byte, 1));
        answered = true;
    });
    device->entered.get_future().wait();
    std::atomic<bool> removed = false;
    std::jthread remover([&] {
        plugged->reset();
        removed = true;
    });
    // New accesses find nobody as soon as the removal has begun, though it is not over.
    while (bus.config_read({2, 0}, 0, 4) != 0xffffffff) std::this_thread::yield();
    EXPECT_FALSE(removed);
    device->released.set_value();
    remover.join();
    EXPECT_TRUE(removed);
    guest.join();
    EXPECT_TRUE(answered);
    EXPECT_TRUE(bus.devices().empty());
}

TEST(HostBridge, ShowsItsIdentityAndKeepsItToo) {
    const auto bridge = create_host_bridge(0x8086, 0x1237);
    EXPECT_EQ(bridge->config_read(0, 4), 0x12378086u);
    EXPECT_EQ(bridge->config_read(0x0a, 2), 0x0600u);
    bridge->config_write(0, 4, 0);
    bridge->config_write(4, 2, 0xffff);
    EXPECT_EQ(bridge->config_read(0, 2), 0x8086u);
    EXPECT_EQ(bridge->config_read(4, 2), 7u);
    EXPECT_EQ(bridge->config_read(0xfe, 4), 0xffff0000u);
    bridge->config_write(0xfe, 4, 0);
    EXPECT_TRUE(bridge->memory_bars().empty());
    EXPECT_FALSE(bridge->bar_read(0, 0, {}));
}

}  // namespace
}  // namespace ferry::pci
