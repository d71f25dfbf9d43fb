// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include "hw/vfio/pci-config.h"
#include "hw/vfio/pci-msix.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A function with a 64-bit BAR0, MSI-X in BAR2 (0x40), a vendor capability (0x50), PCI Express with
// function level reset (0x60), MSI with masks (0xa0).
PciConfig::Hardware hardware() {
    PciConfig::Hardware hw;
    hw.config.resize(pci::kConfigBytes);
    hw.bar_bytes = {kMiB, 0, 4096, 0, 32, 0};
    hw.has_intx = true;
    hw.msi_vectors = 4;
    hw.msix_vectors = 5;
    std::byte* at = hw.config.data();
    const auto byte = [at](size_t offset, uint8_t value) { at[offset] = std::byte{value}; };
    util::store_le32(at + PCI_VENDOR_ID, 0x0101f3e4);
    util::store_le16(at + PCI_COMMAND, 6);
    util::store_le16(at + PCI_STATUS, PCI_STATUS_CAP_LIST);
    byte(PCI_HEADER_TYPE, 0x80);
    util::store_le32(at + PCI_BASE_ADDRESS_0, 0xfe00000c);  // where the host has it
    util::store_le32(at + PCI_BASE_ADDRESS_4, 0x0000e001);
    util::store_le32(at + PCI_ROM_ADDRESS, 0xfff00001);
    byte(PCI_INTERRUPT_PIN, 2);
    byte(PCI_CAPABILITY_LIST, 0x40);
    const auto capability = [&](size_t offset, uint8_t id, uint8_t next) {
        byte(offset, id);
        byte(offset + 1, next);
    };
    capability(0x40, PCI_CAP_ID_MSIX, 0x50);
    util::store_le16(at + 0x42, 0xc000 | 4);  // 5 vectors, left enabled by somebody
    util::store_le32(at + 0x44, 2);
    util::store_le32(at + 0x48, 0x802);
    capability(0x50, PCI_CAP_ID_VNDR, 0x60);
    byte(0x52, 16);
    capability(0x60, PCI_CAP_ID_EXP, 0xa0);
    util::store_le32(at + 0x64, PCI_EXP_DEVCAP_FLR);
    capability(0xa0, PCI_CAP_ID_MSI, 0);
    util::store_le16(at + 0xa2, PCI_MSI_FLAGS_MASKBIT | PCI_MSI_FLAGS_64BIT | 3 << 1);  // 8 vectors
    return hw;
}

PciConfig make(PciConfig::Hardware hw = hardware(),
               PciConfig::VendorBytes vendor = PciConfig::VendorBytes::Compared) {
    return *PciConfig::create(std::move(hw), vendor);
}

PciConfig::Effects write(PciConfig& config, size_t offset, uint32_t value, size_t length = 4) {
    std::byte raw[4];
    util::store_le32(raw, value);
    return config.guest_write(offset, MutBytes(raw, length));
}

uint32_t read32(const PciConfig& config, size_t offset) {
    return util::load_le32(config.image().data() + offset);
}

std::vector<std::byte> image_with(const PciConfig& config, size_t offset, uint8_t flip) {
    std::vector<std::byte> image(config.image().begin(), config.image().end());
    image[offset] ^= std::byte{flip};
    return image;
}

std::string refusal(PciConfig::Hardware hw) {
    const auto config = PciConfig::create(std::move(hw), PciConfig::VendorBytes::Ignored);
    return config ? "" : config.error().message();
}

TEST(PciConfig, OddConfigurationSpacesAreRefused) {
    auto hw = hardware();
    hw.config.resize(255);
    EXPECT_NE(refusal(hw).find("255 bytes"), std::string::npos);
    hw = hardware();
    hw.config[PCI_HEADER_TYPE] = std::byte{1};
    EXPECT_NE(refusal(hw).find("header type 1"), std::string::npos);
}

TEST(PciConfig, BarsThatCannotBeProgrammedAreRefused) {
    for (const uint64_t size : {uint64_t{3000}, uint64_t{8}, uint64_t{1} << 33}) {
        auto hw = hardware();
        hw.bar_bytes[2] = size;
        EXPECT_NE(refusal(hw).find("BAR 2"), std::string::npos) << size;
    }
    auto hw = hardware();
    hw.bar_bytes[1] = 4096;
    EXPECT_NE(refusal(hw).find("upper half"), std::string::npos);
    hw = hardware();
    hw.bar_bytes[5] = 4096;
    util::store_le32(hw.config.data() + PCI_BASE_ADDRESS_5, 4);
    EXPECT_NE(refusal(hw).find("BAR 5"), std::string::npos);
}

TEST(PciConfig, MsixOutsideItsBarIsRefused) {
    auto hw = hardware();
    util::store_le32(hw.config.data() + 0x44, 0xff8 | 2);
    EXPECT_NE(refusal(hw).find("MSI-X table"), std::string::npos);
    hw = hardware();
    util::store_le32(hw.config.data() + 0x48, 0x1000 | 2);
    EXPECT_NE(refusal(hw).find("pending bits"), std::string::npos);
    hw = hardware();
    util::store_le32(hw.config.data() + 0x44, 7);  // no such BAR
    EXPECT_NE(refusal(hw).find("BAR 7"), std::string::npos);
    hw = hardware();
    util::store_le32(hw.config.data() + 0x48, 0x48 | 2);
    EXPECT_NE(refusal(hw).find("overlap"), std::string::npos);
}

TEST(PciConfig, MoreVectorsThanTheDriverHasAreRefused) {
    auto hw = hardware();
    hw.msix_vectors = 4;
    EXPECT_NE(refusal(hw).find("the driver offers 4"), std::string::npos);
}

TEST(PciConfig, TruncatedCapabilitiesAreRefused) {
    auto hw = hardware();
    hw.config[0x41] = std::byte{0x48};  // the next begins inside MSI-X
    hw.config[0x48] = std::byte{PCI_CAP_ID_VNDR};
    hw.config[0x49] = std::byte{0};
    EXPECT_NE(refusal(hw).find("MSI-X capability of 8 bytes"), std::string::npos);
}

TEST(PciConfig, GuestSeesNothingOfTheHostsAddresses) {
    const PciConfig config = make();
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_0), 0xcu);
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_4), 1u);
    EXPECT_EQ(read32(config, PCI_ROM_ADDRESS), 0u);
    EXPECT_EQ(config.command(), 0);
    EXPECT_EQ(config.image()[PCI_HEADER_TYPE], std::byte{0});
    EXPECT_FALSE(config.msix_enabled());
    EXPECT_EQ(config.interrupt_pin(), 2);
}

TEST(PciConfig, WritingAllOnesGivesTheSizeOfABar) {
    PciConfig config = make();
    for (const size_t bar : {PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_1, PCI_BASE_ADDRESS_2,
                             PCI_BASE_ADDRESS_3, PCI_BASE_ADDRESS_4}) {
        write(config, bar, 0xffffffff);
    }
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_0), 0xfff0000cu);
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_1), 0xffffffffu);
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_2), 0xfffff000u);
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_3), 0u);
    EXPECT_EQ(read32(config, PCI_BASE_ADDRESS_4), 0xffffffe1u);
}

TEST(PciConfig, BarsAreDecodedWhileMemoryIsEnabled) {
    PciConfig config = make();
    write(config, PCI_BASE_ADDRESS_0, 0x80000000);
    write(config, PCI_BASE_ADDRESS_1, 1);
    write(config, PCI_BASE_ADDRESS_2, 0xe0000000);
    write(config, PCI_BASE_ADDRESS_4, 0xc000);
    EXPECT_TRUE(config.memory_bars().empty());
    EXPECT_TRUE(write(config, PCI_COMMAND, PCI_COMMAND_MEMORY, 2).command);
    const auto bars = config.memory_bars();
    ASSERT_EQ(bars.size(), 2u);  // not the one of I/O ports
    EXPECT_EQ(bars[0].gpa, 0x180000000u);
    EXPECT_EQ(bars[0].size, kMiB);
    EXPECT_EQ(bars[1].bar, 2u);
    EXPECT_EQ(bars[1].gpa, 0xe0000000u);
}

TEST(PciConfig, PortsAreDecodedWhileTheyAreEnabledAndInReach) {
    PciConfig config = make();
    EXPECT_TRUE(write(config, PCI_COMMAND, PCI_COMMAND_IO, 2).command);
    EXPECT_TRUE(config.port_bars().empty());  // no address yet
    write(config, PCI_BASE_ADDRESS_4, 0xffffffff);
    EXPECT_TRUE(config.port_bars().empty());
    write(config, PCI_BASE_ADDRESS_4, 0xc000);
    const auto bars = config.port_bars();
    ASSERT_EQ(bars.size(), 1u);
    EXPECT_EQ(bars[0].bar, 4u);
    EXPECT_EQ(bars[0].port, 0xc000u);
    EXPECT_EQ(bars[0].size, 32u);
    write(config, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    EXPECT_TRUE(config.port_bars().empty());
}

TEST(PciConfig, BarThatIsBeingSizedIsNotDecoded) {
    PciConfig config = make();
    write(config, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    write(config, PCI_BASE_ADDRESS_0, 0xffffffff);
    write(config, PCI_BASE_ADDRESS_1, 0xffffffff);
    write(config, PCI_BASE_ADDRESS_2, 0xffffffff);
    EXPECT_TRUE(config.memory_bars().empty());
}

TEST(PciConfig, ResetBitIsTakenOutOfTheWrite) {
    PciConfig config = make();
    std::byte raw[4];
    util::store_le32(raw, 0x00009010);
    EXPECT_TRUE(config.guest_write(0x68, raw).reset);
    EXPECT_EQ(util::load_le32(raw), 0x00001010u);
    EXPECT_FALSE(config.guest_write(0x68, raw).reset);
}

TEST(PciConfig, FunctionWithoutFlrIgnoresTheBit) {
    auto hw = hardware();
    util::store_le32(hw.config.data() + 0x64, 0);
    PciConfig config = make(hw);
    EXPECT_FALSE(write(config, 0x68, 0x8000).reset);
}

TEST(PciConfig, AdvancedFeaturesResetIsRecognised) {
    auto hw = hardware();
    hw.config[0x60] = std::byte{PCI_CAP_ID_AF};
    hw.config[0x60 + PCI_AF_CAP] = std::byte{PCI_AF_CAP_FLR};
    PciConfig config = make(hw);
    EXPECT_TRUE(write(config, 0x60 + PCI_AF_CTRL, 1, 1).reset);
}

TEST(PciConfig, DifferenceInAMustMatchFieldIsRefused) {
    PciConfig config = make();
    // Vendor, device, the list bit of STATUS, revision, class, type, list pointer, a BAR's type,
    // MSI-X table size, vendor capability, express capability.
    for (const size_t at : {0x00, 0x02, 0x08, 0x09, 0x0b, 0x0e, 0x34, 0x42, 0x52, 0x54, 0x62}) {
        EXPECT_FALSE(config.load(image_with(config, at, 0x01))) << at;
    }
    EXPECT_FALSE(config.load(image_with(config, PCI_STATUS, PCI_STATUS_CAP_LIST)));
    EXPECT_FALSE(config.load(image_with(config, PCI_BASE_ADDRESS_0, 0x04)));
    EXPECT_FALSE(config.load(image_with(config, PCI_BASE_ADDRESS_2 + 1, 0x08)));  // a smaller BAR
}

TEST(PciConfig, DifferenceInOtherFieldsIsTaken) {
    PciConfig config = make();
    // COMMAND, other STATUS bits, cache line, subsystem, interrupt line, MSI-X enable, MSI.
    for (const size_t at : {0x04, 0x07, 0x0c, 0x2c, 0x3c, 0x43, 0xa4, 0xac}) {
        const uint8_t flip = at == 0x43 ? 0x80 : at == 0xa4 ? 0x10 : 0x01;
        EXPECT_TRUE(config.load(image_with(config, at, flip))) << at;
    }
    EXPECT_TRUE(config.msix_enabled());
}

TEST(PciConfig, VendorBytesAreExemptBehindTheirHeader) {
    PciConfig config = make(hardware(), PciConfig::VendorBytes::Ignored);
    EXPECT_TRUE(config.load(image_with(config, 0x53, 0xff)));
    EXPECT_TRUE(config.load(image_with(config, 0x5f, 0xff)));
    EXPECT_FALSE(config.load(image_with(config, 0x52, 0x01)));
}

TEST(PciConfig, PowerOnForgetsWhatTheGuestWrote) {
    PciConfig config = make();
    const std::vector<std::byte> before(config.image().begin(), config.image().end());
    write(config, PCI_COMMAND, 7, 2);
    write(config, PCI_BASE_ADDRESS_0, 0xe0000000);
    write(config, 0x40, 0x80000000);
    write(config, 0xa2, PCI_MSI_FLAGS_ENABLE, 2);
    config.set_msi_pending(1, true);
    config.power_on();
    EXPECT_TRUE(std::ranges::equal(config.image(), before));
    EXPECT_FALSE(config.msi_pending(1));
}

TEST(PciConfig, MsixRegistersEnableAndMask) {
    PciConfig config = make();
    EXPECT_TRUE(write(config, 0x40, 0xffffffff).interrupts);
    EXPECT_TRUE(config.msix_enabled());
    EXPECT_TRUE(config.msix_function_masked());
    EXPECT_EQ(read32(config, 0x40), 0xc0045011u);
    ASSERT_TRUE(config.msix());
    EXPECT_EQ(config.msix()->vectors, 5u);
    EXPECT_EQ(config.msix()->table_bar, 2u);
    EXPECT_EQ(config.msix()->pba_offset, 0x800u);
}

TEST(PciConfig, MsiMessagesDifferInTheLowBitsOfTheirData) {
    PciConfig config = make();
    write(config, 0xa4, 0xfee01003);
    write(config, 0xa8, 0x12);
    write(config, 0xac, 0x4323, 2);
    write(config, 0xa2, 3 << 4 | PCI_MSI_FLAGS_ENABLE, 2);  // asks for 8, the driver has 4
    EXPECT_EQ(config.msi_vectors(), 4u);
    EXPECT_EQ(config.msi_message(2), (MsiMessage{0x12fee01000, 0x4322}));
    write(config, 0xb0, 0xffffffff);
    EXPECT_TRUE(config.msi_masked(3));
    EXPECT_EQ(read32(config, 0xb0), 0xfu);
}

TEST(MsixTable, PowersOnMaskedAndEmpty) {
    const MsixTable table(5);
    for (unsigned i = 0; i < 5; ++i) {
        EXPECT_TRUE(table.masked(i));
        EXPECT_FALSE(table.pending(i));
    }
}

TEST(MsixTable, WireFormIsTheRawTableAndOneBitPerVector) {
    MsixTable table(2);
    std::byte entry[16];
    util::store_le64(entry, 0x1122334455667788);
    util::store_le32(entry + 8, 0xaabbccdd);
    util::store_le32(entry + 12, 0);
    table.write_table(16, entry);
    table.set_pending(1, true);
    util::WireWriter out;
    table.save(out);
    const uint8_t wanted[] = {0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
                              0,    1,    0,    0,    0,    0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
                              0x22, 0x11, 0xdd, 0xcc, 0xbb, 0xaa, 0,    0,    0,    0,    0x02};
    EXPECT_TRUE(std::ranges::equal(out.view(), std::as_bytes(std::span(wanted))));
    EXPECT_EQ(MsixTable::wire_bytes(2), sizeof(wanted));

    MsixTable copy(2);
    copy.set_pending(0, true);
    copy.load(out.view());
    EXPECT_EQ(copy.message(1), (MsiMessage{0x1122334455667788, 0xaabbccdd}));
    EXPECT_FALSE(copy.masked(1));
    EXPECT_TRUE(copy.masked(0));
    EXPECT_FALSE(copy.pending(0));
    EXPECT_TRUE(copy.pending(1));
}

TEST(MsixTable, PendingBitsBeyondTheLastVectorAreDropped) {
    MsixTable table(5);
    std::vector<std::byte> wire(MsixTable::wire_bytes(5), std::byte{0xff});
    table.load(wire);
    std::byte pba[8];
    table.read_pba(0, pba);
    EXPECT_EQ(util::load_le64(pba), 0x1fu);
}

}  // namespace
}  // namespace ferry::vfio
