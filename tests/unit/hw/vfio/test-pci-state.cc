// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "migration/stream.h"
#include "tests/unit/hw/vfio/fake-routes.h"
#include "tests/unit/hw/vfio/pci-rig.h"

namespace ferry::vfio {
namespace {

using pci_irq::kMsix;
using test::PciFunctionTest;

// be32 version, 256 bytes of configuration space, 4 pins, 4 table entries, pending bits.
constexpr size_t kConfigAt = 4, kPinsAt = kConfigAt + 256, kTableAt = kPinsAt + 16,
                 kPendingAt = kTableAt + 64, kRecordBytes = kPendingAt + 1;

class PciStateTest : public PciFunctionTest {
 protected:
    std::vector<std::byte> save() {
        migration::MemorySink sink;
        migration::SaveStream out(sink);
        function_->save_config(out);
        EXPECT_TRUE(out.flush());
        return sink.take();
    }
    Result<> load(ConstBytes record) {
        migration::MemorySource source(record);
        migration::LoadStream in(source);
        MIG_CHECK(function_->read_config(in));
        return function_->apply_config();
    }
    // What a source would send whose guest uses MSI-X vectors 1 and 2, the latter masked.
    std::vector<std::byte> guest_record() {
        enable_msix();
        set_vector(1, 0xfee01000, 0x41);
        set_vector(2, 0xfee02000, 0x42);
        mask_vector(2);
        function_->config_write(PCI_COMMAND, 2, 6);
        function_->config_write(PCI_BASE_ADDRESS_0, 4, 0xe0000000);
        auto record = save();
        EXPECT_TRUE(function_->reset(PciFunction::ResetBy::Machine));
        kernel_.log.clear();
        return record;
    }
    std::string failure(ConstBytes record) {
        const auto loaded = load(record);
        EXPECT_FALSE(loaded);
        return loaded ? "" : loaded.error().message();
    }
};

TEST_F(PciStateTest, RecordCutAnywhereIsAnErrorAndChangesNothing) {
    const auto record = guest_record();
    for (size_t length = 0; length < record.size(); ++length) {
        EXPECT_FALSE(load(ConstBytes(record).first(length))) << length;
    }
    EXPECT_EQ(function_->config_read(0x42, 2), 3u);
    EXPECT_FALSE(device_.connected(kMsix, 1));
}

TEST_F(PciStateTest, UnknownVersionIsRefused) {
    auto record = guest_record();
    record[3] = std::byte{3};
    EXPECT_NE(failure(record).find("version 3"), std::string::npos);
    record[0] = std::byte{0x80};
    EXPECT_NE(failure(record).find("version -"), std::string::npos);
    record[0] = record[3] = std::byte{0};
    EXPECT_TRUE(load(record));
}

TEST_F(PciStateTest, LevelThatIsNoneHintsAtTheSpacesSize) {
    auto record = guest_record();
    record[kPinsAt + 3] = std::byte{2};
    EXPECT_NE(failure(record).find("configuration space"), std::string::npos);
}

TEST_F(PciStateTest, MustMatchDifferenceNamesOffsetValuesAndMasks) {
    auto record = guest_record();
    record[kConfigAt + PCI_DEVICE_ID] ^= std::byte{0x10};
    const std::string text = failure(record);
    EXPECT_NE(text.find("differs at 0x2: 0x11 came, this device has 0x01 (must match 0xff, "
                        "writable 0x00, write-1-clear 0x00)"),
              std::string::npos)
        << text;
    EXPECT_FALSE(device_.connected(kMsix, 1));
}

TEST_F(PciStateTest, VendorBytesCountOnlyWhereTheyAreCompared) {
    auto record = guest_record();
    record[kConfigAt + 0x58] ^= std::byte{0xff};
    EXPECT_NE(failure(record).find("differs at 0x58"), std::string::npos);
    function_.reset();
    vendor_bytes_ = PciConfig::VendorBytes::Ignored;
    function_ = *create();
    EXPECT_TRUE(load(record));
}

TEST_F(PciStateTest, DisplayStateIsRefusedByName) {
    auto record = guest_record();
    const std::string_view name = "VFIOPCIDevice/VFIODisplay";
    record.push_back(std::byte{5});
    record.push_back(static_cast<std::byte>(name.size()));
    const ConstBytes text = bytes_of(name);
    record.insert(record.end(), text.begin(), text.end());
    EXPECT_NE(failure(record).find("display=off"), std::string::npos);
}

TEST_F(PciStateTest, InterruptsThatCannotBeEnabledAreFatal) {
    const auto record = guest_record();
    kernel_.fail_call(kernel_.calls() + 3, EIO);  // COMMAND, INTx off, MSI-X on
    const std::string text = failure(record);
    EXPECT_NE(text.find("setting up its interrupts"), std::string::npos) << text;
    EXPECT_NE(text.find("MSI-X"), std::string::npos) << text;
}

TEST_F(PciStateTest, EveryFailingCallOfALoadIsAnError) {
    const auto record = guest_record();
    for (unsigned call = 1;; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        const auto loaded = load(record);
        if (loaded) {
            kernel_.fail_call(0, 0);
            EXPECT_GT(call, 2u);
            break;
        }
        EXPECT_EQ(loaded.error().errnum(), EIO) << loaded.error().message();
        ASSERT_TRUE(function_->reset(PciFunction::ResetBy::Machine));
    }
}

TEST_F(PciStateTest, RecordHasTheDocumentedBytes) {
    enable_msix();
    set_vector(1, 0x11fee01000, 0x41);
    set_vector(3, 0xfee03000, 0x43);
    mask_vector(3);
    device_.raise(kMsix, 3);
    EXPECT_TRUE(loop_.wait_for([&] { return pending_bits() == 8; }));
    const auto record = save();
    ASSERT_EQ(record.size(), kRecordBytes);
    EXPECT_EQ(function_->config_bytes(), kRecordBytes);
    EXPECT_EQ(util::load_be32(record.data()), 2u);
    EXPECT_EQ(util::load_le32(record.data() + kConfigAt), 0x0101f3e4u);
    EXPECT_EQ(util::load_le16(record.data() + kConfigAt + 0x42), 0x8003);
    EXPECT_EQ(util::load_be32(record.data() + kPinsAt), 0u);
    const uint8_t table[] = {0, 0,    0,    0,    0,    0, 0, 0, 0,    0, 0, 0, 1, 0, 0, 0,  //
                             0, 0x10, 0xe0, 0xfe, 0x11, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, 0,
                             0, 0,    0,    0,    0,    0, 0, 0, 0,    0, 0, 1, 0, 0, 0,  //
                             0, 0x30, 0xe0, 0xfe, 0,    0, 0, 0, 0x43, 0, 0, 0, 1, 0, 0, 0, 0x08};
    EXPECT_TRUE(
        std::ranges::equal(ConstBytes(record).subspan(kTableAt), std::as_bytes(std::span(table))));
}

TEST_F(PciStateTest, WhatWasLoadedIsSavedAgain) {
    const auto record = guest_record();
    ASSERT_TRUE(load(record));
    EXPECT_EQ(save(), record);
}

TEST_F(PciStateTest, LoadMakesTheStateTakeEffect) {
    ASSERT_TRUE(load(guest_record()));
    EXPECT_EQ(util::load_le16(config_bytes().data() + PCI_COMMAND), 6);
    EXPECT_EQ(function_->memory_bars().at(0).gpa, 0xe0000000u);
    EXPECT_TRUE(device_.connected(kMsix, 1));
    EXPECT_FALSE(device_.connected(kMsix, 2));  // masked
    EXPECT_FALSE(device_.connected(kMsix, 0));  // never used
    device_.raise(kMsix, 1);
    EXPECT_TRUE(wait_for_messages(1));
    EXPECT_EQ(messages()[0], (MsiMessage{0xfee01000, 0x41}));
}

TEST_F(PciStateTest, UnmaskedVectorsOfTheSourceAreRoutedAgain) {
    const auto record = guest_record();
    function_.reset();
    test::FakeRoutes routes;
    routes_ = &routes;
    function_ = *create();
    stop_vm();
    ASSERT_TRUE(load(record));
    EXPECT_EQ(routes.connected, (std::map<size_t, MsiMessage>{{1, {0xfee01000, 0x41}}}));
    ASSERT_TRUE(function_->forget_config());
    EXPECT_TRUE(routes.connected.empty());
    function_.reset();
}

TEST_F(PciStateTest, PendingInterruptOfTheSourceIsDeliveredWhenTheVmStarts) {
    auto record = guest_record();
    record[kPendingAt] = std::byte{0x02};
    stop_vm();
    ASSERT_TRUE(load(record));
    EXPECT_TRUE(messages().empty());
    start_vm();
    EXPECT_EQ(messages(), (std::vector{MsiMessage{0xfee01000, 0x41}}));
}

TEST_F(PciStateTest, PinLevelTravels) {
    stop_vm();
    device_.raise(pci_irq::kIntx, 0);
    EXPECT_TRUE(loop_.wait_for([&] { return util::load_be32(save().data() + kPinsAt) == 1; }));
    const auto record = save();
    ASSERT_TRUE(function_->reset(PciFunction::ResetBy::Machine));
    EXPECT_EQ(util::load_be32(save().data() + kPinsAt), 0u);
    ASSERT_TRUE(load(record));
    start_vm();
    EXPECT_EQ(pins().back(), MsiSink::Level::High);
}

TEST_F(PciStateTest, InterruptThatTheLoopHasNotSeenIsSavedAsPending) {
    enable_msix();
    set_vector(1, 0xfee01000, 0x41);
    stop_vm();
    std::vector<std::byte> record;
    loop_.run([&] {
        device_.raise(kMsix, 1);  // the loop is here, not at its descriptors
        record = save();
    });
    EXPECT_EQ(record[kPendingAt], std::byte{0x02});
    start_vm();  // the migration failed: the source has not lost it
    EXPECT_TRUE(wait_for_messages(1));
    EXPECT_EQ(messages().size(), 1u);
}

TEST_F(PciStateTest, LoadedMsixWithoutUsedVectorsIsStillSwitchedOn) {
    enable_msix();
    const auto record = save();
    ASSERT_TRUE(function_->reset(PciFunction::ResetBy::Machine));
    kernel_.log.clear();
    ASSERT_TRUE(load(record));
    EXPECT_EQ(std::ranges::count(kernel_.log, name_ + ": connect irqs 2: - - - -"), 1);
}

}  // namespace
}  // namespace ferry::vfio
