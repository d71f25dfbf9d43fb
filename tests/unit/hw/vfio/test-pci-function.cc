// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <cerrno>

#include "tests/unit/hw/vfio/pci-rig.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

using pci_irq::kMsix;
using test::kTableBar;
using test::PciFunctionTest;

TEST_F(PciFunctionTest, EveryFailingCallOfTheCreationIsAnError) {
    function_.reset();
    for (unsigned call = 1;; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        auto created = create();
        if (created) {
            kernel_.fail_call(0, 0);
            EXPECT_GT(call, 4u);
            loop_.run([&] { (*created)->disconnect(); });
            break;
        }
        EXPECT_EQ(created.error().errnum(), EIO) << created.error().message();
    }
}

TEST_F(PciFunctionTest, HostileCapabilityListIsRefused) {
    function_.reset();
    config_bytes()[0x61] = std::byte{0x40};
    const auto created = create();
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().kind(), ErrorKind::Protocol);
}

TEST_F(PciFunctionTest, SpaceWithoutHeaderIsRefused) {
    function_.reset();
    device_.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 63;
    io_.reset();
    EXPECT_FALSE(create());
}

TEST_F(PciFunctionTest, SpaceOfAnOddSizeIsFilledUpWithZeros) {
    function_.reset();
    device_.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 255;
    io_.reset();
    function_ = *create();
    config_bytes()[0xfe] = std::byte{0x5a};
    EXPECT_EQ(function_->config_read(0xfc, 4), 0x005a0000u);
    EXPECT_EQ(function_->config_read(0xffc, 4), 0u);
    function_->config_write(0xfc, 4, 0x11223344);
    EXPECT_EQ(config_bytes()[0xfe], std::byte{0x22});
    EXPECT_EQ(function_->config_read(0xfc, 4), 0x00223344u);
}

TEST_F(PciFunctionTest, DriverWithFewerVectorsThanTheTableIsRefused) {
    function_.reset();
    device_.irqs[kMsix].count = 3;
    EXPECT_FALSE(create());
}

TEST_F(PciFunctionTest, StrayConfigAccessesGiveAllOnes) {
    EXPECT_EQ(function_->config_read(254, 4), 0xffffffffu);
    EXPECT_EQ(function_->config_read(256, 1), 0xffu);
    EXPECT_EQ(function_->config_read(0xffff, 2), 0xffffu);
    const unsigned before = kernel_.calls();
    function_->config_write(254, 4, 0);
    EXPECT_EQ(kernel_.calls(), before);
}

TEST_F(PciFunctionTest, ForeignRegistersAreTheDevices) {
    config_bytes()[PCI_STATUS + 1] = std::byte{0x02};
    EXPECT_EQ(function_->config_read(PCI_COMMAND, 4), 0x02100000u);
    config_bytes()[0xf0] = std::byte{0x5a};
    EXPECT_EQ(function_->config_read(0xf0, 1), 0x5au);
    function_->config_write(0xf0, 2, 0x1234);
    EXPECT_EQ(util::load_le16(config_bytes().data() + 0xf0), 0x1234);
}

TEST_F(PciFunctionTest, FailingConfigReadGivesAllOnesAndOneWarning) {
    for (int i = 0; i < 3; ++i) {
        kernel_.fail_call(kernel_.calls() + 1, EIO);
        EXPECT_EQ(function_->config_read(PCI_COMMAND, 4), 0xffff0000u);
    }
    EXPECT_EQ(warnings(), 1u);
}

TEST_F(PciFunctionTest, CommandReachesTheDeviceAndBarsDoNot) {
    util::store_le32(config_bytes().data() + PCI_BASE_ADDRESS_0, 0xfe000004);
    function_->config_write(PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    function_->config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    EXPECT_EQ(util::load_le16(config_bytes().data() + PCI_COMMAND), 6);
    EXPECT_EQ(util::load_le32(config_bytes().data() + PCI_BASE_ADDRESS_0), 0xfe000004u);
    const auto bars = function_->memory_bars();
    ASSERT_EQ(bars.size(), 1u);
    EXPECT_EQ(bars[0].gpa, 0xe0000000u);
}

TEST_F(PciFunctionTest, CreationTurnsOffWhatAnotherUserLeftOn) {
    function_.reset();
    util::store_le16(config_bytes().data() + PCI_COMMAND, 7);
    function_ = *create();
    EXPECT_EQ(util::load_le16(config_bytes().data() + PCI_COMMAND), 0);
}

TEST_F(PciFunctionTest, FailingBarAccessIsReportedOnceToTheLog) {
    std::byte four[4];
    for (int i = 0; i < 3; ++i) {
        kernel_.fail_call(kernel_.calls() + 1, EIO);
        EXPECT_FALSE(function_->bar_read(0, 0, four));
    }
    EXPECT_EQ(warnings(), 1u);
}

TEST_F(PciFunctionTest, AccessOutsideABarIsRefused) {
    std::byte four[4];
    const unsigned before = kernel_.calls();
    EXPECT_FALSE(function_->bar_read(0, 0x3ffe, four));
    EXPECT_FALSE(function_->bar_write(1, 0, four));
    EXPECT_FALSE(function_->bar_read(6, 0, four));
    EXPECT_FALSE(function_->bar_read(kTableBar, UINT64_MAX, four));
    EXPECT_EQ(kernel_.calls(), before);
}

TEST_F(PciFunctionTest, TableAndPendingBitsNeverReachTheDevice) {
    std::ranges::fill(device_.regions[kTableBar].bytes(), std::byte{0x11});
    set_vector(1, 0xfee00000, 0x42);
    std::byte whole[0x48];
    ASSERT_TRUE(function_->bar_read(kTableBar, 0, whole));  // the table and what is behind it
    EXPECT_EQ(util::load_le32(whole + 16), 0xfee00000u);
    EXPECT_EQ(util::load_le32(whole + 24), 0x42u);
    EXPECT_EQ(whole[0x40], std::byte{0x11});
    const auto raw = device_.regions[kTableBar].bytes();
    EXPECT_TRUE(std::ranges::all_of(raw, [](std::byte b) { return b == std::byte{0x11}; }));

    std::ranges::fill(whole, std::byte{0x77});
    ASSERT_TRUE(function_->bar_write(kTableBar, 0x7f8, ConstBytes(whole).first(0x18)));
    EXPECT_EQ(raw[0x7ff], std::byte{0x77});
    EXPECT_EQ(raw[0x800], std::byte{0x11});  // pending bits
    EXPECT_EQ(raw[0x808], std::byte{0x77});
    ASSERT_TRUE(function_->bar_read(kTableBar, 0x800, MutBytes(whole).first(8)));
    EXPECT_EQ(util::load_le64(whole), 0u);
}

TEST_F(PciFunctionTest, UnmaskedVectorDeliversItsMessage) {
    enable_msix();
    set_vector(2, 0xfee01000, 0x4123);
    EXPECT_TRUE(device_.connected(kMsix, 2));
    EXPECT_FALSE(device_.connected(kMsix, 1));
    EXPECT_TRUE(device_.raise(kMsix, 2));
    EXPECT_TRUE(wait_for_messages(1));
    EXPECT_EQ(messages()[0], (MsiMessage{0xfee01000, 0x4123}));
}

TEST_F(PciFunctionTest, MaskedVectorPendsUntilItIsUnmasked) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    mask_vector(0);
    device_.raise(kMsix, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 1; }));
    EXPECT_TRUE(messages().empty());
    set_vector(0, 0xfee02000, 8);
    EXPECT_EQ(messages(), (std::vector{MsiMessage{0xfee02000, 8}}));
    EXPECT_EQ(pending_bits(), 0u);
}

TEST_F(PciFunctionTest, FunctionMaskHoldsAllVectors) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    function_->config_write(0x42, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    device_.raise(kMsix, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 1; }));
    EXPECT_TRUE(messages().empty());
    function_->config_write(0x42, 2, PCI_MSIX_FLAGS_ENABLE);
    EXPECT_EQ(messages().size(), 1u);
}

TEST_F(PciFunctionTest, DisablingMsixDisconnectsItsVectors) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    function_->config_write(0x42, 2, 0);
    EXPECT_FALSE(device_.connected(kMsix, 0));
    EXPECT_TRUE(device_.connected(pci_irq::kIntx, 0));
}

TEST_F(PciFunctionTest, VectorsThatCannotBeConnectedWarnOnceAndTheGuestGoesOn) {
    enable_msix();
    for (unsigned vector = 0; vector < 3; ++vector) {
        kernel_.fail_call(kernel_.calls() + 1, ENOSPC);
        set_vector(vector, 0xfee01000, vector);
        EXPECT_FALSE(device_.connected(kMsix, vector));
    }
    EXPECT_EQ(warnings(), 1u);
    set_vector(3, 0xfee01000, 3);  // the next change brings all of them up
    EXPECT_TRUE(device_.connected(kMsix, 0));
    EXPECT_TRUE(device_.connected(kMsix, 3));
}

TEST_F(PciFunctionTest, DriverThatCannotAddVectorsGetsAllAtOnce) {
    enable_msix();
    set_vector(3, 0xfee01000, 3);
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": connect irqs 2: - - - -"), 1);
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": connect irqs 2: 3"), 1);
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": disable irqs 2"), 0);
}

TEST_F(PciFunctionTest, HostShortOfVectorsGivesThoseThatAreUsed) {
    device_.host_vectors = 2;
    enable_msix();
    set_vector(0, 0xfee01000, 0x10);
    set_vector(1, 0xfee01000, 0x11);
    EXPECT_TRUE(device_.connected(kMsix, 0));
    EXPECT_TRUE(device_.connected(kMsix, 1));
    // Vector 0 was off for a moment: it gets an interrupt, whether or not it missed one.
    EXPECT_TRUE(wait_for_messages(1));
    EXPECT_EQ(messages()[0].data, 0x10u);
}

TEST_F(PciFunctionTest, DriverThatAddsVectorsGetsThemOneByOne) {
    function_.reset();
    device_.irqs[kMsix].flags = VFIO_IRQ_INFO_EVENTFD;
    function_ = *create();
    enable_msix();
    set_vector(0, 0xfee01000, 0);
    set_vector(3, 0xfee01000, 3);
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": connect irqs 2: -"), 1);
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": connect irqs 2: 3"), 1);
    EXPECT_TRUE(device_.connected(kMsix, 0));
}

TEST_F(PciFunctionTest, PinIsHighUntilTheGuestLooksAtTheDevice) {
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
    EXPECT_TRUE(loop_.wait_for([&] { return pins().size() == 1; }));
    EXPECT_FALSE(device_.raise(pci_irq::kIntx, 0));  // masked meanwhile
    std::byte four[4];
    ASSERT_TRUE(function_->bar_read(0, 0, four));
    EXPECT_EQ(pins(), (std::vector{MsiSink::Level::High, MsiSink::Level::Low}));
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
}

TEST_F(PciFunctionTest, MachineWithoutPinsShowsNone) {
    function_.reset();
    wires_pins_ = false;
    function_ = *create();
    EXPECT_EQ(function_->config_read(PCI_INTERRUPT_PIN, 1), 0u);
    EXPECT_FALSE(device_.connected(pci_irq::kIntx, 0));
}

TEST_F(PciFunctionTest, FunctionLevelResetBringsEverythingToPowerOn) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    mask_vector(0);
    device_.raise(kMsix, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 1; }));
    function_->config_write(PCI_COMMAND, 2, 6);
    function_->config_write(PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    int told = 0;
    function_->set_reset_listener([&told] { ++told; });

    function_->config_write(0x68, 2, PCI_EXP_DEVCTL_BCR_FLR | 0x10);

    EXPECT_EQ(device_.resets, 1u);
    EXPECT_EQ(told, 1);
    EXPECT_EQ(util::load_le16(config_bytes().data() + 0x68), 0x10);
    EXPECT_FALSE(device_.connected(kMsix, 0));
    EXPECT_EQ(pending_bits(), 0u);
    EXPECT_EQ(function_->config_read(0x42, 2), 3u);
    EXPECT_EQ(function_->config_read(PCI_BASE_ADDRESS_0, 4), 4u);
    EXPECT_EQ(util::load_le16(config_bytes().data() + PCI_COMMAND), 0);
}

TEST_F(PciFunctionTest, FailingResetByTheGuestChangesNothing) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    function_->set_reset_listener([] { FAIL(); });
    kernel_.fail_call(kernel_.calls() + 1, EAGAIN);
    const auto reset = function_->reset(PciFunction::ResetBy::Guest);
    ASSERT_FALSE(reset);
    EXPECT_EQ(reset.error().errnum(), EAGAIN);
    EXPECT_TRUE(device_.connected(kMsix, 0));
    EXPECT_EQ(function_->config_read(0x42, 2), 0x8003u);
}

TEST_F(PciFunctionTest, FailingResetByTheMachineSwitchesTheDeviceOff) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    function_->config_write(PCI_COMMAND, 2, 6);
    function_->set_reset_listener([] { FAIL(); });
    kernel_.fail_call(kernel_.calls() + 1, EAGAIN);
    const auto reset = function_->reset(PciFunction::ResetBy::Machine);
    ASSERT_FALSE(reset);
    EXPECT_EQ(reset.error().errnum(), EAGAIN);
    EXPECT_FALSE(device_.connected(kMsix, 0));
    EXPECT_EQ(function_->config_read(0x42, 2), 3u);
    EXPECT_EQ(util::load_le16(config_bytes().data() + PCI_COMMAND), 0);
}

TEST_F(PciFunctionTest, DeviceThatCannotBeResetLosesWhatTheVmmKeeps) {
    function_.reset();
    io_.reset();
    device_.can_reset = false;
    function_ = *create();
    function_->set_reset_listener([] { FAIL(); });
    enable_msix();
    const auto reset = function_->reset(PciFunction::ResetBy::Guest);
    ASSERT_FALSE(reset);
    EXPECT_EQ(reset.error().kind(), ErrorKind::Unsupported);
    EXPECT_EQ(function_->config_read(0x42, 2), 3u);
}

TEST_F(PciFunctionTest, InterruptsSignalledBeforeAStopReachMemoryBeforeItIsOver) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    size_t at_stop = 0;
    loop_.run([&] {
        device_.raise(kMsix, 0);  // the loop is busy and does not see it
        runstate_.stop(system::RunState::FinishMigrate, [&](const Result<>& stopped) {
            EXPECT_TRUE(stopped);
            at_stop = messages().size();
        });
    });
    EXPECT_EQ(at_stop, 1u);
}

TEST_F(PciFunctionTest, InterruptsOfAStoppedVmWaitForItToRun) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    stop_vm();
    device_.raise(kMsix, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 1; }));
    EXPECT_TRUE(messages().empty());
    start_vm();
    EXPECT_EQ(messages().size(), 1u);
    EXPECT_EQ(pending_bits(), 0u);
}

TEST_F(PciFunctionTest, PinOfAStoppedVmRisesWhenItRuns) {
    stop_vm();
    device_.raise(pci_irq::kIntx, 0);
    loop_.run([] {});
    loop_.run([] {});
    EXPECT_TRUE(pins().empty());
    start_vm();
    EXPECT_EQ(pins(), (std::vector{MsiSink::Level::High}));
}

}  // namespace
}  // namespace ferry::vfio
