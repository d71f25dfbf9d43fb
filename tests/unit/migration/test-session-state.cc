// SPDX-License-Identifier: BSD-2-Clause
// Device state over page channels, in whole migrations: how it gets there, who must agree on what,
// and what a channel that breaks does to the devices.
#include <algorithm>

#include "tests/support/fault-channel.h"
#include "tests/unit/migration/device-session.h"

namespace ferry::test {
namespace {

using migration::MigrationStatus;
using system::RunState;
using vfio::OnOffAuto;

class StateSession : public DeviceSessionTest {
 protected:
    void make_sides(size_t page_channels, size_t devices = 3,
                    const hw::TestDeviceConfig& config = small_device(),
                    OnOffAuto src_transfer = OnOffAuto::Auto,
                    OnOffAuto dst_transfer = OnOffAuto::Auto) {
        make_pair(std::vector(devices, config));
        for (const auto& [side, transfer] :
             {std::pair(src.get(), src_transfer), std::pair(dst.get(), dst_transfer)}) {
            if (page_channels != 0) use_page_channels(*side, page_channels);
            set_transfer(*side, transfer);
        }
        set_downtime_limit_ms(100'000);  // none of these waits for a faster line
    }
    void set_transfer(SoftSide& side, OnOffAuto transfer) {
        ASSERT_TRUE(side.vm.on_loop([&]() -> Result<> {
            for (size_t i = 0; i < side.devices.size(); ++i) {
                side.device(i).set_multifd_transfer(transfer);
            }
            return {};
        }));
    }
    void expect_failed(const std::string& words) {
        finish();
        EXPECT_EQ(src->vm.status(), MigrationStatus::Failed);
        expect_source_goes_on(words);
        const std::string error = src->vm.error_desc();
        EXPECT_NE(error.find(words), std::string::npos) << error;
    }
    static hw::TestDeviceConfig without_pre_copy(uint64_t bytes) {
        hw::TestDeviceConfig config;
        config.caps.pre_copy = false;
        config.state_bytes = bytes;
        return config;
    }
    // Of what the devices sent.
    uint64_t counted() const { return src->vm.services.bytes_sent(); }
};

TEST_F(StateSession, GoesOverOneTwoAndEightChannels) {
    for (const size_t channels : {1, 2, 8}) {
        make_sides(channels);
        begin();
        finish();
        expect_moved();
    }
}

TEST_F(StateSession, IsWholeWhateverTheDevicesSize) {
    for (const uint64_t bytes : {4096U, 65536U, 1U << 20, 5U << 20}) {
        make_sides(2, 2, without_pre_copy(bytes));
        begin();
        finish();
        expect_moved();
    }
}

// As many bytes as more than the destination lets wait.
TEST_F(StateSession, IsMoreThanMayWait) {
    make_sides(3, 3, without_pre_copy(40U << 20));
    begin();
    finish();
    expect_moved();
}

TEST_F(StateSession, CountsAsQemuDoes) {
    make_sides(2, 1, without_pre_copy(256 * 1024));
    begin();
    finish();
    expect_moved();
    const uint64_t over_channels = counted();
    make_sides(0, 1, without_pre_copy(256 * 1024));
    begin();
    finish();
    expect_moved();
    EXPECT_GT(over_channels, counted()) << "places and the configuration count there";
}

TEST_F(StateSession, WaitsForADeviceThatLoadsSlowly) {
    make_sides(2, 2, without_pre_copy(8U << 20));
    dst->a().faults().hold("write state");
    begin();
    ASSERT_TRUE(dst->vm.loop.wait_for([&] { return !dst->a().faults().held().empty(); }));
    dst->a().faults().release();
    finish();
    expect_moved();
}

// --- who must agree

TEST_F(StateSession, OnNeedsPageChannels) {
    make_sides(0, 1, small_device(), OnOffAuto::On, OnOffAuto::Auto);
    begin();
    expect_failed("x-migration-multifd-transfer=on needs the capability multifd");
}

TEST_F(StateSession, CompressedPageChannelsTakeNone) {
    const auto compress = [this] {
        for (SoftSide* side : {src.get(), dst.get()}) {
            ASSERT_TRUE(side->vm.on_loop([&] {
                migration::Parameters now = side->vm.migration->parameters();
                now.multifd_compression =
                    static_cast<uint64_t>(migration::MultifdCompression::Zlib);
                return side->vm.migration->set_parameters(now);
            }));
        }
    };
    make_sides(2, 2);
    compress();
    begin();
    finish();
    expect_moved();  // by main channel
    make_sides(2, 1, small_device(), OnOffAuto::On, OnOffAuto::Auto);
    compress();
    begin();
    expect_failed(
        "x-migration-multifd-transfer=on needs the capability multifd without compression");
}

TEST_F(StateSession, OffGoesByMainChannelBesideThePages) {
    make_sides(2, 2, small_device(), OnOffAuto::Off, OnOffAuto::Off);
    begin();
    finish();
    expect_moved();
}

TEST_F(StateSession, OnTowardsOffIsRefused) {
    make_sides(2, 1, small_device(), OnOffAuto::On, OnOffAuto::Off);
    begin();
    expect_failed("its state comes on page channels, but is awaited on the main one");
}

TEST_F(StateSession, OffTowardsOnIsRefused) {
    make_sides(2, 1, small_device(), OnOffAuto::Off, OnOffAuto::On);
    begin();
    expect_failed("comes on the main channel, but is awaited on page channels");
}

TEST_F(StateSession, IsChosenAnewForEachMigration) {
    make_sides(2);
    begin();
    finish();
    expect_moved();
    for (SoftSide* side : {src.get(), dst.get()}) set_transfer(*side, OnOffAuto::Off);
    begin_migration(*dst, *src);
    finish_migration(*dst, *src);
    test::expect_moved(*dst, *src, RunState::Running);
}

TEST_F(StateSession, WhatIsSetMeanwhileIsForTheNextMigration) {
    make_sides(2);
    src->a().faults().hold("arc:pre-copy->pre-copy-p2p");
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return !src->a().faults().held().empty(); }));
    set_transfer(*src, OnOffAuto::Off);
    src->a().faults().release();
    finish();
    expect_moved();
}

TEST_F(StateSession, DeviceThatIsOnlyAtTheDestinationIsTold) {
    for (const size_t channels : {0, 2}) {
        make_pair(std::vector(1, small_device()));
        dst =
            std::make_unique<SoftSide>(clock, RunState::InMigrate, std::vector(2, small_device()));
        if (channels != 0) {
            use_page_channels(*src, channels);
            use_page_channels(*dst, channels);
        }
        begin();
        expect_failed("device dev4: the stream has no complete state for it");
    }
}

// --- who means no good

TEST_F(StateSession, SwitchoverBeforeAnySectionIsSurvived) {
    make_sides(0, 1);
    auto [near, far] = migration::make_memory_channel_pair();
    ASSERT_TRUE(dst->vm.incoming(std::move(far)));
    const std::string_view machine = "test-machine";
    std::vector<std::byte> raw;
    for (const int byte : {0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3, 7, 0, 0, 0, 12}) {
        raw.push_back(static_cast<std::byte>(byte));
    }
    raw.insert(raw.end(), bytes_of(machine).begin(), bytes_of(machine).end());
    for (const int byte : {8, 0, 11, 0, 0, 0}) raw.push_back(static_cast<std::byte>(byte));
    const std::array<ConstBytes, 1> parts{ConstBytes(raw)};
    ASSERT_TRUE(near->write_all(parts));
    ASSERT_TRUE(near->finish_writing());
    ASSERT_TRUE(dst->vm.wait_over());
    EXPECT_EQ(dst->vm.status(), MigrationStatus::Failed);
    EXPECT_NE(dst->vm.error_desc().find("RAM"), std::string::npos) << dst->vm.error_desc();
}

// --- what breaks

// Each call on each side's second page channel fails once; nobody loses the VM, nobody runs it
// twice, and the devices follow it.
TEST_F(StateSession, BrokenChannelLeavesOneVm) {
    for (const bool at_source : {true, false}) {
        size_t moved = 0;
        for (int call = 1; moved < 2; call += call < 12 ? 1 : 17) {
            const std::string which =
                fmt::format("{} call {}", at_source ? "source" : "destination", call);
            make_sides(2, 2, without_pre_copy(1U << 20));
            auto [main_a, main_b] = migration::make_memory_channel_pair();
            std::vector<std::unique_ptr<migration::MigrationChannel>> src_pages(2);
            std::vector<std::unique_ptr<migration::MigrationChannel>> dst_pages(2);
            for (size_t i = 0; i < 2; ++i) {
                std::tie(src_pages[i], dst_pages[i]) =
                    migration::make_memory_channel_pair("page-" + std::to_string(i));
            }
            auto& broken = (at_source ? src_pages : dst_pages)[1];
            const auto counter = std::make_shared<std::atomic<int>>(0);
            broken = std::make_unique<FaultChannel>(std::move(broken), counter, call);
            ASSERT_TRUE(dst->vm.on_loop([&] {
                return dst->vm.migration->migrate_incoming(
                    std::move(main_b), migration::ExitOnError::No, std::move(dst_pages));
            }));
            ASSERT_TRUE(src->vm.on_loop([&] {
                return src->vm.migration->migrate(std::move(main_a), std::move(src_pages));
            }));
            finish();
            if (src->vm.status() == MigrationStatus::Completed) {
                test::expect_moved(*src, *dst, RunState::Running, which);
                ++moved;
            } else {
                test::expect_as_before(*src, *dst, RunState::Running, which);
            }
            if (HasFailure()) return;
        }
    }
}

TEST_F(StateSession, CancelWhileADeviceIsSaved) {
    make_sides(2, 2, without_pre_copy(4U << 20));
    src->b().faults().hold("read state");
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return !src->b().faults().held().empty(); }));
    src->vm.loop.run([&] { src->vm.migration->migrate_cancel(); });
    src->b().faults().release();
    finish();
    EXPECT_EQ(src->vm.status(), MigrationStatus::Cancelled);
    test::expect_as_before(*src, *dst, RunState::Running);
}

}  // namespace
}  // namespace ferry::test
