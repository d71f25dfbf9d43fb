// SPDX-License-Identifier: BSD-2-Clause
// Port 0x92, the keyboard controller and the reset control register.
#include <gtest/gtest.h>

#include <optional>

#include "hw/acpi/reset-control.h"
#include "hw/isa/i8042.h"
#include "hw/isa/port92.h"
#include "tests/unit/hw/isa/device-state.h"

namespace ferry::isa {
namespace {

struct Effects {
    int resets = 0;
    std::optional<bool> a20;
    ResetAndA20 actions() {
        return {.reset = [this] { ++resets; }, .set_a20 = [this](bool on) { a20 = on; }};
    }
};

// ---- 0x92

TEST(Port92, A20IsOpenFromTheStart) {
    Effects effects;
    Port92 port(effects.actions());
    EXPECT_EQ(port.read(0, 1), 2u);
}

TEST(Port92, A20FollowsItsBit) {
    Effects effects;
    Port92 port(effects.actions());
    port.write(0, 1, 2);
    EXPECT_FALSE(effects.a20.has_value());
    port.write(0, 1, 0);
    EXPECT_EQ(effects.a20, false);
    port.write(0, 1, 2);
    EXPECT_EQ(effects.a20, true);
    EXPECT_EQ(effects.resets, 0);
}

TEST(Port92, RisingFastResetBitResetsOnce) {
    Effects effects;
    Port92 port(effects.actions());
    port.write(0, 1, 3);
    port.write(0, 1, 3);
    EXPECT_EQ(effects.resets, 1);
    port.write(0, 1, 2);
    port.write(0, 1, 3);
    EXPECT_EQ(effects.resets, 2);
}

TEST(Port92, StateMigratesAndSetsA20) {
    Effects effects, there;
    Port92 source(effects.actions()), target(there.actions());
    source.write(0, 1, 0);
    ASSERT_TRUE(test::migrate_device(source, target));
    EXPECT_EQ(target.read(0, 1), 0u);
    EXPECT_EQ(there.a20, false);
    target.reset();
    EXPECT_EQ(there.a20, true);
}

// ---- keyboard controller

constexpr uint16_t kI8042Data = 0, kI8042Command = 4;

TEST(I8042, SelfTestAnswersAndSetsTheSystemFlag) {
    Effects effects;
    I8042 controller(effects.actions());
    EXPECT_EQ(controller.read(kI8042Command, 1), 0x18u);
    controller.write(kI8042Command, 1, 0xaa);
    EXPECT_EQ(controller.read(kI8042Command, 1), 0x1du);
    EXPECT_EQ(controller.read(kI8042Data, 1), 0x55u);
    EXPECT_EQ(controller.read(kI8042Command, 1), 0x1cu);
}

TEST(I8042, CommandByteIsKept) {
    Effects effects;
    I8042 controller(effects.actions());
    controller.write(kI8042Command, 1, 0x60);
    controller.write(kI8042Data, 1, 0x47);
    controller.write(kI8042Command, 1, 0xad);
    controller.write(kI8042Command, 1, 0x20);
    EXPECT_EQ(controller.read(kI8042Data, 1), 0x57u);
    controller.write(kI8042Command, 1, 0xae);
    controller.write(kI8042Command, 1, 0x20);
    EXPECT_EQ(controller.read(kI8042Data, 1), 0x47u);
}

TEST(I8042, PulsesOfTheResetLineReset) {
    Effects effects;
    I8042 controller(effects.actions());
    controller.write(kI8042Command, 1, 0xff);
    controller.write(kI8042Command, 1, 0xfd);
    EXPECT_EQ(effects.resets, 0);
    controller.write(kI8042Command, 1, 0xfe);
    EXPECT_EQ(effects.resets, 1);
}

TEST(I8042, OutputPortGatesA20AndResets) {
    Effects effects;
    I8042 controller(effects.actions());
    controller.write(kI8042Command, 1, 0xd1);
    controller.write(kI8042Data, 1, 0x01);
    EXPECT_EQ(effects.a20, false);
    controller.write(kI8042Command, 1, 0xdf);
    EXPECT_EQ(effects.a20, true);
    controller.write(kI8042Command, 1, 0xd0);
    EXPECT_EQ(controller.read(kI8042Data, 1), 0x03u);
    controller.write(kI8042Command, 1, 0xd1);
    controller.write(kI8042Data, 1, 0x02);
    EXPECT_EQ(effects.resets, 1);
}

TEST(I8042, AKeyboardThatIsNotThereAnswersNothing) {
    Effects effects;
    I8042 controller(effects.actions());
    controller.write(kI8042Data, 1, 0xff);
    controller.write(kI8042Command, 1, 0xd4);
    controller.write(kI8042Data, 1, 0xf2);
    EXPECT_EQ(controller.read(kI8042Command, 1) & 1, 0u);
    EXPECT_EQ(controller.read(1, 1), 0xffu);  // port 0x61
}

TEST(I8042, PendingOperandMigrates) {
    Effects effects, there;
    I8042 source(effects.actions()), target(there.actions());
    source.write(kI8042Command, 1, 0xd1);
    ASSERT_TRUE(test::migrate_device(source, target));
    EXPECT_EQ(there.a20, true);
    target.write(kI8042Data, 1, 0x01);
    EXPECT_EQ(there.a20, false);
}

TEST(I8042, OperandOfACommandThatHasNoneIsRefused) {
    Effects effects;
    I8042 source(effects.actions()), target(effects.actions());
    auto bytes = test::save_device(source);
    bytes.back() = std::byte{0xaa};
    const auto refused = test::load_device(target, bytes);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::Protocol);
}

TEST(I8042, ResetForgetsWhatWasAsked) {
    Effects effects;
    I8042 controller(effects.actions());
    controller.write(kI8042Command, 1, 0xaa);
    controller.reset();
    EXPECT_EQ(controller.read(kI8042Command, 1), 0x18u);
}

// ---- 0xcf9

TEST(ResetControl, TheResetBitResetsAndIsNotKept) {
    int requests = 0;
    acpi::ResetControl control([&] { ++requests; });
    control.write(0, 1, 0x02);
    EXPECT_EQ(requests, 0);
    control.write(0, 1, 0x0e);
    EXPECT_EQ(requests, 1);
    EXPECT_EQ(control.read(0, 1), 0x0au);
    control.reset();
    EXPECT_EQ(control.read(0, 1), 0u);
}

TEST(ResetControl, StateMigratesAndIsChecked) {
    acpi::ResetControl source({}), target({});
    source.write(0, 1, 0x02);
    ASSERT_TRUE(test::migrate_device(source, target));
    EXPECT_EQ(target.read(0, 1), 0x02u);
    EXPECT_FALSE(test::load_device(target, std::array{std::byte{4}}));
    EXPECT_EQ(target.read(0, 1), 0x02u);
}

}  // namespace
}  // namespace ferry::isa
