// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "system/vmm/interrupt-lines.h"

namespace ferry::vmm {
namespace {

using Change = std::pair<unsigned, bool>;
using Changes = std::vector<Change>;
using Side = qtest::InterruptLines::Side;

struct LinesTest : public ::testing::Test {
    util::Registration watch(const std::string& device, Side side, Changes& into) {
        return lines.watch(device, side, [&into](unsigned number, bool level) {
            into.emplace_back(number, level);
        });
    }
    InterruptLines lines;
};

TEST_F(LinesTest, SharedLineIsHighWhileAnyHoldsIt) {
    Changes seen;
    const auto watching = watch(InterruptLines::kControllerPath, Side::In, seen);
    const isa::IrqLine first = lines.connect("/a", 0, 4);
    const isa::IrqLine second = lines.connect("/b", 0, 4);
    first(true);
    second(true);
    first(false);
    EXPECT_EQ(seen, (Changes{{4, true}}));
    second(false);
    EXPECT_EQ(seen, (Changes{{4, true}, {4, false}}));
}

TEST_F(LinesTest, ControllerHearsRepetitionsAndWatchersDoNot) {
    Changes controller;
    lines.set_controller([&](unsigned line, bool level) { controller.emplace_back(line, level); });
    Changes seen;
    const auto watching = watch(InterruptLines::kControllerPath, Side::In, seen);
    const isa::IrqLine wire = lines.connect("/a", 0, 9);
    wire(true);
    wire(true);
    EXPECT_EQ(controller, (Changes{{9, true}, {9, true}}));
    EXPECT_EQ(seen, (Changes{{9, true}}));
}

TEST_F(LinesTest, DeviceThatGoesLetsItsLineFall) {
    Changes seen;
    const auto watching = watch(InterruptLines::kControllerPath, Side::In, seen);
    {
        const isa::IrqLine wire = lines.connect("/a", 0, 7);
        const isa::IrqLine copy = wire;
        wire(true);
    }
    EXPECT_EQ(seen, (Changes{{7, true}, {7, false}}));
    EXPECT_FALSE(lines.resolve("a", Side::Out));
}

TEST_F(LinesTest, OutputsAreTheDevicesOwn) {
    const isa::IrqLine mine = lines.connect("/machine/x/dev", 2, 16);
    const isa::IrqLine other = lines.connect("/machine/x/other", 0, 16);
    other(true);
    const auto path = lines.resolve("dev", Side::Out);
    ASSERT_TRUE(path);
    Changes seen;
    {
        const auto watching = watch(*path, Side::Out, seen);
        mine(true);
        other(false);
    }
    mine(false);
    EXPECT_EQ(seen, (Changes{{2, true}}));
}

TEST_F(LinesTest, AmbiguousAndUnknownNamesAreRefused) {
    const isa::IrqLine one = lines.connect("/machine/a/dev", 0, 1);
    const isa::IrqLine two = lines.connect("/machine/b/dev", 0, 1);
    EXPECT_FALSE(lines.resolve("dev", Side::Out));
    EXPECT_TRUE(lines.resolve("a/dev", Side::Out));
    EXPECT_FALSE(lines.resolve("ev", Side::Out));
    EXPECT_FALSE(lines.resolve("", Side::Out));
    EXPECT_FALSE(lines.resolve("dev", Side::In));
    EXPECT_FALSE(lines.set_input("ioapic", InterruptLines::kLines, true));
}

TEST(PciInterruptLine, IsSwizzledBySlotAndPin) {
    const pci::PciAddress slot3{.device = 3, .function = 0};
    EXPECT_EQ(pci_interrupt_line(MachineType::Q35, slot3, 1), 19U);
    EXPECT_EQ(pci_interrupt_line(MachineType::Q35, {.device = 31, .function = 0}, 2), 16U);
    EXPECT_EQ(pci_interrupt_line(MachineType::Pc, slot3, 1), 11U);
    EXPECT_EQ(pci_interrupt_line(MachineType::Pc, slot3, 2), 10U);
}

}  // namespace
}  // namespace ferry::vmm
