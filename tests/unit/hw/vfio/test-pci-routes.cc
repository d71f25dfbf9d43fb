// SPDX-License-Identifier: BSD-2-Clause
// Interrupts that have a way of their own into the guest.
#include <cerrno>

#include "tests/unit/hw/vfio/fake-routes.h"
#include "tests/unit/hw/vfio/pci-rig.h"

namespace ferry::vfio {
namespace {

using pci_irq::kMsix;
using Connected = std::map<size_t, MsiMessage>;

class PciRoutesTest : public test::PciFunctionTest {
 protected:
    PciRoutesTest() {
        function_.reset();
        routes_ = &fake_;
        function_ = *create();
    }
    ~PciRoutesTest() override {
        function_.reset();
        EXPECT_EQ(fake_.devices, 0u);
        EXPECT_TRUE(fake_.connected.empty());
    }
    test::FakeRoutes fake_;
};

TEST_F(PciRoutesTest, AVectorThatCannotBeRoutedComesThroughTheProcess) {
    fake_.fail = ENOSPC;
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    set_vector(1, 0xfee01000, 8);
    EXPECT_EQ(warnings(), 1u);
    EXPECT_NE(env_.log.lines()[0].second.find("detour"), std::string::npos);
    EXPECT_TRUE(device_.raise(kMsix, 0));
    EXPECT_TRUE(wait_for_messages(1));
    EXPECT_EQ(messages()[0].data, 7u);
}

TEST_F(PciRoutesTest, UnmaskedVectorsAreRoutedAndMaskedOnesAreNot) {
    enable_msix();
    EXPECT_TRUE(fake_.connected.empty());
    set_vector(2, 0xfee01000, 0x4123);
    EXPECT_EQ(fake_.connected, (Connected{{2, {0xfee01000, 0x4123}}}));
    EXPECT_TRUE(device_.connected(kMsix, 2));
    mask_vector(2);
    EXPECT_TRUE(fake_.connected.empty());
    set_vector(2, 0xfee02000, 1);
    EXPECT_EQ(fake_.connected, (Connected{{2, {0xfee02000, 1}}}));
}

TEST_F(PciRoutesTest, ARewrittenMessageIsRoutedAnew) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    set_vector(0, 0xfee01000, 9);
    EXPECT_EQ(fake_.connected, (Connected{{0, {0xfee01000, 9}}}));
}

TEST_F(PciRoutesTest, FunctionMaskTakesAllRoutesAway) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    set_vector(1, 0xfee01000, 8);
    function_->config_write(0x42, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    EXPECT_TRUE(fake_.connected.empty());
    function_->config_write(0x42, 2, PCI_MSIX_FLAGS_ENABLE);
    EXPECT_EQ(fake_.connected.size(), 2u);
}

TEST_F(PciRoutesTest, AMaskedVectorPendsAndIsSentWhenUnmasked) {
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    mask_vector(0);
    device_.raise(kMsix, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 1; }));
    set_vector(0, 0xfee02000, 8);
    EXPECT_EQ(messages(), (std::vector{MsiMessage{0xfee02000, 8}}));
    EXPECT_EQ(fake_.connected.size(), 1u);
}

TEST_F(PciRoutesTest, DisablingAndResettingGiveThemBack) {
    for (const bool reset : {false, true}) {
        enable_msix();
        set_vector(0, 0xfee01000, 7);
        EXPECT_EQ(fake_.connected.size(), 1u);
        if (reset) {
            EXPECT_TRUE(function_->reset(PciFunction::ResetBy::Machine));
        } else {
            function_->config_write(0x42, 2, 0);
        }
        EXPECT_TRUE(fake_.connected.empty());
        EXPECT_TRUE(fake_.events.empty());
    }
}

TEST_F(PciRoutesTest, MsiIsRoutedToo) {
    function_.reset();
    // In place of the vendor capability: 64-bit, two vectors, not maskable.
    MutBytes config = config_bytes();
    config[0x50] = std::byte{PCI_CAP_ID_MSI};
    util::store_le16(config.data() + 0x52, PCI_MSI_FLAGS_64BIT | 1 << 1);
    device_.irqs[pci_irq::kMsi].count = 2;
    io_.reset();
    function_ = *create();
    function_->config_write(0x54, 4, 0xfee03000);
    function_->config_write(0x5c, 2, 0x4050);
    function_->config_write(0x52, 2, PCI_MSI_FLAGS_ENABLE | 1 << 4);
    EXPECT_EQ(fake_.connected, (Connected{{0, {0xfee03000, 0x4050}}, {1, {0xfee03000, 0x4051}}}));
    function_->config_write(0x5c, 2, 0x4060);
    EXPECT_EQ(fake_.connected[1].data, 0x4061u);
    function_->config_write(0x52, 2, 0);
    EXPECT_TRUE(fake_.connected.empty());
}

TEST_F(PciRoutesTest, ThePinAndItsAcknowledgementPassTheProcessBy) {
    ASSERT_EQ(fake_.inputs.size(), 1u);
    EXPECT_EQ(fake_.inputs.begin()->first, 10u);
    EXPECT_EQ(function_->config_read(PCI_INTERRUPT_LINE, 1), 10u);
    const test::FakeRoutes::Input& input = fake_.inputs.begin()->second;
    loop_.run([&] {  // which would take the signal otherwise
        EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
        EXPECT_TRUE(input.take());
    });
    EXPECT_FALSE(device_.raise(pci_irq::kIntx, 0));  // masked until it is acknowledged
    input.acknowledge();
    loop_.run([&] {
        EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
        EXPECT_TRUE(input.take());
    });
    EXPECT_TRUE(pins().empty());
    enable_msix();
    EXPECT_TRUE(fake_.inputs.empty());
    function_->config_write(0x42, 2, 0);
    EXPECT_EQ(fake_.inputs.size(), 1u);
}

TEST_F(PciRoutesTest, APinThatCannotBeRoutedComesThroughTheProcess) {
    for (const bool by_driver : {true, false}) {
        function_.reset();
        fake_.fail = by_driver ? 0 : EINVAL;
        device_.unmasks_by_eventfd = !by_driver;
        function_ = *create();
        EXPECT_TRUE(fake_.inputs.empty());
        const size_t before = pins().size();
        device_.raise(pci_irq::kIntx, 0);
        EXPECT_TRUE(loop_.wait_for([&] { return pins().size() == before + 1; }));
        EXPECT_EQ(pins().back(), MsiSink::Level::High);
        std::byte four[4];
        ASSERT_TRUE(function_->bar_read(0, 0, four));
        EXPECT_EQ(pins().back(), MsiSink::Level::Low);
        fake_.fail = 0;
        device_.unmasks_by_eventfd = true;
    }
}

TEST_F(PciRoutesTest, ADriverThatRefusesThePinLeavesNoRoute) {
    enable_msix();
    kernel_.fail_call(kernel_.calls() + 2, EBUSY);  // MSI-X off, INTx on
    function_->config_write(0x42, 2, 0);
    EXPECT_TRUE(fake_.inputs.empty());
    EXPECT_EQ(warnings(), 1u);
}

}  // namespace
}  // namespace ferry::vfio
