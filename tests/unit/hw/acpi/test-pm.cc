// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <string>

#include "hw/acpi/pm.h"
#include "tests/unit/hw/isa/device-state.h"

namespace ferry::acpi {
namespace {

using namespace std::chrono_literals;

constexpr uint16_t kPmStatus = 0, kPmEnable = 2, kPmControl = 4, kPmTimer = 8;
constexpr uint16_t kPmTimerBit = 1, kPmButton = 0x100, kPmWake = 0x8000;

struct PmRig {
    util::Nanoseconds now{0};
    bool sci = false;
    int sci_changes = 0;
    std::string asked;
    Pm pm;

    explicit PmRig(Chipset chipset = Chipset::Ich9)
        : pm(
              chipset, [this] { return now; },
              [this](bool level) {
                  sci = level;
                  ++sci_changes;
              },
              {.power_off = [this] { asked += "off "; },
               .suspend = [this] { asked += "suspend "; },
               .hibernate = [this] { asked += "hibernate "; },
               .timer_changed = [this] { asked += "timer "; }}) {}
    uint32_t get(uint16_t offset) { return pm.read(offset, 2); }
    void set(uint16_t offset, uint32_t value) { pm.write(offset, 2, value); }
};

// ---- power button and wake-up

TEST(Pm, PowerButtonInterruptsUntilAcknowledged) {
    PmRig rig;
    rig.set(kPmEnable, kPmButton);
    rig.pm.press_power_button();
    EXPECT_TRUE(rig.sci);
    EXPECT_EQ(rig.get(kPmStatus), kPmButton);
    rig.set(kPmStatus, kPmButton);
    EXPECT_FALSE(rig.sci);
    EXPECT_EQ(rig.get(kPmStatus), 0u);
}

TEST(Pm, PowerButtonIsRememberedUntilTheGuestWantsIt) {
    PmRig rig;
    rig.pm.press_power_button();
    EXPECT_FALSE(rig.sci);
    rig.set(kPmEnable, kPmButton);
    EXPECT_TRUE(rig.sci);
}

TEST(Pm, WakeSetsTheStatusThatTheGuestLooksFor) {
    PmRig rig;
    rig.pm.wake(Pm::WakeReason::Other);
    EXPECT_EQ(rig.get(kPmStatus), kPmWake);
    rig.pm.write(1, 1, 0x80);
    EXPECT_EQ(rig.get(kPmStatus), 0u);
    rig.pm.wake(Pm::WakeReason::Rtc);
    EXPECT_EQ(rig.get(kPmStatus), kPmWake | 0x400u);
    EXPECT_FALSE(rig.sci);
}

// ---- sleep

TEST(Pm, SleepTypesAreThoseOfTheChipsets) {
    PmRig rig;
    rig.set(kPmControl, 0 << 10 | 0x2000);
    rig.set(kPmControl, 1 << 10 | 0x2000);
    rig.set(kPmControl, 2 << 10 | 0x2000);
    rig.set(kPmControl, 5 << 10 | 0x2000);
    EXPECT_EQ(rig.asked, "off suspend hibernate ");
}

TEST(Pm, TypeWithoutTheEnableBitDoesNothing) {
    PmRig rig;
    rig.set(kPmControl, 1 << 10);
    EXPECT_EQ(rig.asked, "");
    EXPECT_EQ(rig.get(kPmControl), 1u << 10);
}

TEST(Pm, EnableBitReadsAsZero) {
    PmRig rig;
    rig.set(kPmControl, 1 << 10 | 0x2000 | 1);
    EXPECT_EQ(rig.get(kPmControl), 1u << 10 | 1);
}

TEST(Pm, ByteWritesOfTheHighHalfSuffice) {
    PmRig rig;
    rig.pm.write(kPmControl + 1, 1, 0x24);
    EXPECT_EQ(rig.asked, "suspend ");
}

// ---- ACPI on and off

TEST(Pm, SmiCommandsSwitchAcpi) {
    for (const auto& [chipset, on, off] :
         {std::tuple{Chipset::Ich9, 0x02u, 0x03u}, std::tuple{Chipset::Piix4, 0xf1u, 0xf0u}}) {
        PmRig rig(chipset);
        rig.pm.smi_command().write(0, 1, on);
        EXPECT_EQ(rig.get(kPmControl), 1u);
        EXPECT_EQ(rig.pm.smi_command().read(0, 1), on);
        rig.pm.smi_command().write(0, 1, off);
        EXPECT_EQ(rig.get(kPmControl), 0u);
        rig.pm.smi_command().write(1, 1, 0x77);
        EXPECT_EQ(rig.pm.smi_command().read(1, 1), 0x77u);
    }
}

// ---- the timer

TEST(Pm, TimerCountsAtItsFrequencyIn24Bits) {
    PmRig rig;
    EXPECT_EQ(rig.pm.read(kPmTimer, 4), 0u);
    rig.now = 1s;
    EXPECT_EQ(rig.pm.read(kPmTimer, 4), Pm::kTimerHz);
    rig.now = 100s;
    EXPECT_EQ(rig.pm.read(kPmTimer, 4), uint64_t{Pm::kTimerHz} * 100 % (1 << 24));
}

TEST(Pm, TimerStatusTellsThatTheHighestBitHasFlipped) {
    PmRig rig;
    rig.now = 2343ms;  // 2^23 ticks are 2.3435 s
    EXPECT_EQ(rig.get(kPmStatus), 0u);
    rig.now = 2344ms;
    EXPECT_EQ(rig.get(kPmStatus), kPmTimerBit);
    rig.set(kPmStatus, kPmTimerBit);
    EXPECT_EQ(rig.get(kPmStatus), 0u);
    rig.now = 4688ms;
    EXPECT_EQ(rig.get(kPmStatus), kPmTimerBit);
}

TEST(Pm, TimerInterruptComesAtItsDeadline) {
    PmRig rig;
    EXPECT_FALSE(rig.pm.timer_deadline());
    rig.set(kPmEnable, kPmTimerBit);
    EXPECT_EQ(rig.asked, "timer ");
    const auto deadline = rig.pm.timer_deadline();
    ASSERT_TRUE(deadline);
    rig.now = *deadline - 1us;
    rig.pm.poll_timer();
    EXPECT_FALSE(rig.sci);
    rig.now = *deadline;
    rig.pm.poll_timer();
    EXPECT_TRUE(rig.sci);
    EXPECT_FALSE(rig.pm.timer_deadline());
    rig.set(kPmStatus, kPmTimerBit);
    EXPECT_FALSE(rig.sci);
    EXPECT_EQ(rig.asked, "timer timer ");
    EXPECT_GT(rig.pm.timer_deadline(), deadline);
}

// ---- life

TEST(Pm, ResetClearsTheRegistersAndLowersTheLine) {
    PmRig rig;
    rig.set(kPmEnable, kPmButton);
    rig.set(kPmControl, 1);
    rig.pm.press_power_button();
    rig.pm.reset();
    EXPECT_FALSE(rig.sci);
    EXPECT_EQ(rig.pm.read(0, 4), 0u);
    EXPECT_EQ(rig.get(kPmControl), 0u);
}

TEST(Pm, RegistersMigrateAndTheLineFollows) {
    PmRig source, target;
    source.set(kPmEnable, kPmButton);
    source.set(kPmControl, 1 << 10 | 1);
    source.pm.press_power_button();
    ASSERT_TRUE(test::migrate_device(source.pm, target.pm));
    EXPECT_TRUE(target.sci);
    EXPECT_EQ(target.get(kPmStatus), kPmButton);
    EXPECT_EQ(target.get(kPmControl), 1u << 10 | 1);
    target.pm.start();
    EXPECT_EQ(target.sci_changes, 2);  // driven anew, though it had not changed
}

TEST(Pm, OverflowOfTheTimerMigrates) {
    PmRig source, target;
    source.now = target.now = 5s;
    ASSERT_TRUE(test::migrate_device(source.pm, target.pm));
    EXPECT_EQ(target.get(kPmStatus), kPmTimerBit);
    target.set(kPmStatus, kPmTimerBit);
    target.now = 6s;
    EXPECT_EQ(target.get(kPmStatus), 0u);
}

TEST(Pm, TimerOfAPeerThatIsAheadDoesNotSilenceOurs) {
    PmRig source, target;
    source.now = 1000s;
    source.pm.read(kPmStatus, 2);
    source.set(kPmStatus, kPmTimerBit);
    ASSERT_TRUE(test::migrate_device(source.pm, target.pm));
    target.now = 3s;
    EXPECT_EQ(target.get(kPmStatus), kPmTimerBit);
}

TEST(Pm, ControlWithTheSleepBitIsRefused) {
    PmRig source, target;
    auto bytes = test::save_device(source.pm);
    bytes[4] = std::byte{0x20};
    const auto refused = test::load_device(target.pm, bytes);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::Protocol);
}

}  // namespace
}  // namespace ferry::acpi
