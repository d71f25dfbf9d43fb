// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "hw/isa/rtc.h"
#include "tests/unit/hw/isa/device-state.h"

namespace ferry::isa {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kRtcMib = 1 << 20;
// Monday.
constexpr auto kRtcEpoch =
    std::chrono::sys_days(std::chrono::year(2026) / 3 / 30) + 13h + 5min + 9s;

// Century to seconds.
constexpr std::array<uint8_t, 7> kTimeRegisters{0x32, 9, 8, 7, 4, 2, 0};

// A clock chip and the host's time of day.
struct RtcRig {
    std::chrono::sys_time<std::chrono::nanoseconds> host = kRtcEpoch;
    Rtc rtc;

    explicit RtcRig(const Rtc::Memory& memory = {}) : rtc([this] { return host; }, memory) {}
    uint32_t get(uint8_t index) {
        rtc.write(0, 1, index);
        return rtc.read(1, 1);
    }
    void set(uint8_t index, uint8_t value) {
        rtc.write(0, 1, index);
        rtc.write(1, 1, value);
    }
    std::vector<uint32_t> time() {
        std::vector<uint32_t> values;
        for (const uint8_t index : kTimeRegisters) values.push_back(get(index));
        return values;
    }
};
using RtcTime = std::vector<uint32_t>;

TEST(Rtc, ShowsTheHostsTimeInDecimal) {
    RtcRig rig;
    EXPECT_EQ(rig.time(), (RtcTime{0x20, 0x26, 0x03, 0x30, 0x13, 0x05, 0x09}));
    EXPECT_EQ(rig.get(6), 2u);
    rig.host += 60s;
    EXPECT_EQ(rig.get(2), 0x06u);
}

TEST(Rtc, BinaryAndTwelveHoursOnRequest) {
    RtcRig rig;
    rig.set(0xb, 0x04);
    EXPECT_EQ(rig.time(), (RtcTime{20, 26, 3, 30, 0x81, 5, 9}));
    rig.host += 11h;  // midnight
    EXPECT_EQ(rig.get(4), 12u);
}

TEST(Rtc, SetStopsTheClockAndTheNewTimeRunsFromItsEnd) {
    RtcRig rig;
    rig.set(0xb, 0x82);
    rig.host += 10s;
    EXPECT_EQ(rig.get(0), 0x09u);
    const RtcTime wanted{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58};
    for (size_t i = 0; i < wanted.size(); ++i) {
        rig.set(kTimeRegisters[i], static_cast<uint8_t>(wanted[i]));
    }
    rig.set(0xb, 0x02);
    EXPECT_EQ(rig.time(), wanted);
    rig.host += 3s;
    EXPECT_EQ(rig.time(), (RtcTime{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x01}));
}

TEST(Rtc, OneRegisterCanBeSetWhileTheClockRuns) {
    RtcRig rig;
    rig.set(2, 0x40);
    EXPECT_EQ(rig.time(), (RtcTime{0x20, 0x26, 0x03, 0x30, 0x13, 0x40, 0x09}));
}

TEST(Rtc, NonsenseCarriesOverAndStaysInRange) {
    RtcRig rig;
    rig.set(8, 0x04);
    rig.set(7, 0x31);  // of April
    EXPECT_EQ(rig.get(8), 0x05u);
    EXPECT_EQ(rig.get(7), 0x01u);
    for (const uint8_t index : kTimeRegisters) rig.set(index, 0xff);
    EXPECT_EQ(rig.get(0x32), 0x22u);  // no more than 200 years ahead
    for (const uint8_t index : kTimeRegisters) rig.set(index, 0x00);
    EXPECT_EQ(rig.get(0x32), 0x18u);
}

TEST(Rtc, SaysShortlyBeforeThatItWillUpdate) {
    RtcRig rig;
    EXPECT_EQ(rig.get(0xa), 0x26u);
    rig.host += 999'800us;
    EXPECT_EQ(rig.get(0xa), 0xa6u);
    rig.host += 200us;
    EXPECT_EQ(rig.get(0xa), 0x26u);
}

TEST(Rtc, StatusRegisters) {
    RtcRig rig;
    EXPECT_EQ(rig.get(0xc), 0u);
    EXPECT_EQ(rig.get(0xd), 0x80u);
    rig.set(0xc, 0xff);
    rig.set(0xd, 0x00);
    EXPECT_EQ(rig.get(0xc), 0u);
    EXPECT_EQ(rig.get(0xd), 0x80u);
    EXPECT_EQ(rig.rtc.read(0, 1), 0xffu);
}

uint32_t word(RtcRig& rig, uint8_t at) {
    return rig.get(at) | rig.get(static_cast<uint8_t>(at + 1)) << 8;
}

TEST(Rtc, MemorySizesOfALargeMachine) {
    RtcRig rig({.below_4g_bytes = 2048 * kRtcMib, .above_4g_bytes = 1024 * kRtcMib, .cpus = 4});
    EXPECT_EQ(word(rig, 0x15), 640u);
    EXPECT_EQ(word(rig, 0x17), 0xffffu);
    EXPECT_EQ(word(rig, 0x30), 0xffffu);
    EXPECT_EQ(word(rig, 0x34), (2048 - 16) * 16u);
    EXPECT_EQ(word(rig, 0x5b), 1024 * 16u);
    EXPECT_EQ(rig.get(0x5f), 3u);
}

TEST(Rtc, MemorySizesOfASmallMachine) {
    RtcRig rig({.below_4g_bytes = 8 * kRtcMib});
    EXPECT_EQ(word(rig, 0x17), 7 * 1024u);
    EXPECT_EQ(word(rig, 0x34), 0u);
    EXPECT_EQ(word(rig, 0x5b), 0u);
    EXPECT_EQ(rig.get(0x5f), 0u);
}

TEST(Rtc, TimeMemoryAndIndexMigrate) {
    RtcRig source, target;
    source.set(0x40, 0x5a);
    source.set(2, 0x40);
    source.rtc.write(0, 1, 0x40);
    ASSERT_TRUE(test::migrate_device(source.rtc, target.rtc));
    EXPECT_EQ(target.rtc.read(1, 1), 0x5au);
    EXPECT_EQ(target.time(), source.time());
}

TEST(Rtc, AClockThatIsBeingSetMigratesAsItStands) {
    RtcRig source, target;
    source.set(0xb, 0x82);
    target.host += 24h;
    ASSERT_TRUE(test::migrate_device(source.rtc, target.rtc));
    EXPECT_EQ(target.time(), (RtcTime{0x20, 0x26, 0x03, 0x30, 0x13, 0x05, 0x09}));
}

TEST(Rtc, IndexAndTimeOfAPeerAreChecked) {
    RtcRig source, target;
    auto bytes = test::save_device(source.rtc);
    bytes[0] = std::byte{0x80};
    EXPECT_FALSE(test::load_device(target.rtc, bytes));
    bytes[0] = std::byte{0};
    bytes[bytes.size() - 8] = std::byte{0x7f};
    const auto refused = test::load_device(target.rtc, bytes);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("more than 200 years"), std::string::npos);
}

TEST(Rtc, ResetKeepsTheTimeAndDropsTheInterruptEnables) {
    RtcRig rig;
    rig.set(2, 0x40);
    rig.set(0xb, 0x72);
    rig.rtc.reset();
    EXPECT_EQ(rig.get(0xb), 0x02u);
    EXPECT_EQ(rig.get(2), 0x40u);
}

}  // namespace
}  // namespace ferry::isa
