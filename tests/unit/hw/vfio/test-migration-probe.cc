// SPDX-License-Identifier: BSD-2-Clause
// Which devices migrate, and what is said about those that do not.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/fakes/scripted-iommu-log.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using system::RunState;
using test::kAll;
using test::kP2P;
using test::kPlain;
using test::ScriptedDeviceIo;
using test::VfioVmFixture;

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}
VfioProperties enable(OnOffAuto value) {
    return {.enable_migration = value};
}
void no_log(ScriptedDeviceIo& io) {
    io.set_dma_logging(false);
}
void no_migration(ScriptedDeviceIo& io) {
    io.fail_calls("caps", ENOTTY);
}
void broken_driver(ScriptedDeviceIo& io) {
    io.fail_calls("caps", EIO);
}

TEST(VfioProbe, AbleDeviceJoinsWithoutAReasonAgainstIt) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.name = "03.0"});
    EXPECT_TRUE(vm.blockers().empty());
    ASSERT_NE(device.handlers, nullptr);
    EXPECT_EQ(device.handlers->section().idstr, "0000:00:03.0/vfio");
    EXPECT_EQ(device.handlers->section().version_id, 1u);
    EXPECT_TRUE(vm.services.in_play());
    EXPECT_EQ(vm.memory.trackers().size(), 1u);
}

TEST(VfioProbe, SwitchedOffDeviceBlocksAndIsNotEvenAsked) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.properties = enable(OnOffAuto::Off)});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "enable-migration=off"));
    EXPECT_EQ(device.handlers, nullptr);
    EXPECT_TRUE(vm.log.lines().empty());
    EXPECT_FALSE(vm.services.in_play());
    vm.unplug(device);
    EXPECT_TRUE(vm.blockers().empty());
}

TEST(VfioProbe, DriverWithoutMigrationBlocksOrFailsTheDevice) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.script = no_migration});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "device a"));
    EXPECT_TRUE(contains(vm.blockers()[0], "offers no live migration"));
    EXPECT_EQ(device.handlers, nullptr);
    const auto forced =
        vm.plug({.name = "b", .properties = enable(OnOffAuto::On), .script = no_migration});
    ASSERT_FALSE(forced);
    EXPECT_EQ(vm.blockers().size(), 1u);
}

TEST(VfioProbe, DriverWithoutStopCopyBlocks) {
    VfioVmFixture vm;
    vm.plugged({.caps = {}});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "offers no live migration"));
    EXPECT_FALSE(vm.plug({.name = "b", .caps = {}, .properties = enable(OnOffAuto::On)}));
}

TEST(VfioProbe, FailingDriverBlocksWithItsErrno) {
    VfioVmFixture vm;
    vm.plugged({.script = broken_driver});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "Input/output error"));
    const auto forced =
        vm.plug({.name = "b", .properties = enable(OnOffAuto::On), .script = broken_driver});
    ASSERT_FALSE(forced);
    EXPECT_EQ(forced.error().errnum(), EIO);
}

TEST(VfioProbe, DeviceInErrorStateIsResetFirst) {
    VfioVmFixture vm;
    vm.plugged({.script = [](ScriptedDeviceIo& io) {
        io.fail_arc(MigState::Running, MigState::RunningP2P, EIO, ScriptedDeviceIo::After::Lost);
        EXPECT_FALSE(io.set_mig_state(MigState::RunningP2P));
    }});
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_EQ(vm.services.devices().at(0).state, "running");
}

TEST(VfioProbe, WithoutATrackerAutoBlocksAndOnMigratesWithAWarning) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.script = no_log});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "enable-migration=on"));
    EXPECT_NE(device.handlers, nullptr);  // registered all the same
    EXPECT_FALSE(vm.services.in_play());
    vm.unplug(device);
    EXPECT_TRUE(vm.blockers().empty());

    vm.plugged({.name = "b", .properties = enable(OnOffAuto::On), .script = no_log});
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_TRUE(vm.services.in_play());
    ASSERT_EQ(vm.env.log.lines().size(), 1u);
    EXPECT_EQ(vm.env.log.lines()[0].first, util::LogLevel::Warning);
}

TEST(VfioProbe, TrackerSwitchedOffByPropertyCountsAsNone) {
    VfioVmFixture vm;
    vm.plugged({.properties = {.device_dirty_page_tracking = OnOffAuto::Off}});
    EXPECT_EQ(vm.blockers().size(), 1u);
}

TEST(VfioProbe, VirtualIommuBlocksWhereTheDevicesLogWouldBeUsed) {
    VfioVmFixture vm;
    DmaSpace space(vm.memory);
    auto& device = vm.plugged({.dma_space = &space});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "IOMMU"));
    vm.unplug(device);
    EXPECT_FALSE(vm.plug({.name = "b", .properties = enable(OnOffAuto::On), .dma_space = &space}));
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_TRUE(vm.plug(
        {.name = "c", .properties = enable(OnOffAuto::On), .dma_space = &space, .script = no_log}));
}

TEST(VfioProbe, IommuThatTracksTakesADeviceWithoutALogOrBehindAVirtualIommu) {
    VfioVmFixture vm;
    DmaSpace space(vm.memory);
    test::ScriptedIommuLog iommu;
    const auto with_iommu = [&](ScriptedDeviceIo& io) { io.set_iommu_log(&iommu); };
    vm.plugged({.name = "a", .script = [&](ScriptedDeviceIo& io) {
                    no_log(io);
                    with_iommu(io);
                }});
    vm.plugged({.name = "b", .dma_space = &space, .script = with_iommu});
    vm.plugged({.name = "c",
                .properties = {.device_dirty_page_tracking = OnOffAuto::Off},
                .script = with_iommu});
    EXPECT_TRUE(vm.blockers().empty());
}

TEST(VfioProbe, IommuThatNeedsConsentIsUsedWithItOnly) {
    VfioVmFixture vm;
    vm.add_ram(0, 16 * system::kPageSize);
    test::ScriptedIommuLog iommu;
    iommu.its_consent = IommuDirtyLog::Consent::Needed;
    const auto script = [&](ScriptedDeviceIo& io) {
        no_log(io);
        io.set_iommu_log(&iommu);
    };
    auto& device = vm.plugged({.script = script});
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "enable-migration=on"));
    vm.unplug(device);
    vm.plugged({.properties = enable(OnOffAuto::On), .script = script});
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_TRUE(vm.env.log.lines().empty());
    ASSERT_TRUE(vm.memory.trackers().at(0)->dirty_log_start());
    EXPECT_EQ(iommu.starts, 1u);
    vm.memory.trackers().at(0)->dirty_log_stop();
}

TEST(VfioProbe, SeveralDevicesNeedPeerToPeerInAllOfThemAsOneReason) {
    VfioVmFixture vm;
    auto& without = vm.plugged({.name = "a", .caps = kPlain});
    EXPECT_TRUE(vm.blockers().empty());  // alone it needs none
    vm.plugged({.name = "b", .caps = kP2P});
    EXPECT_EQ(vm.blockers().size(), 1u);
    auto& third = vm.plugged({.name = "c", .caps = kPlain});
    EXPECT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "P2P"));
    EXPECT_TRUE(vm.services.in_play());  // no device's own reason
    vm.unplug(third);
    EXPECT_EQ(vm.blockers().size(), 1u);
    vm.unplug(without);
    EXPECT_TRUE(vm.blockers().empty());
}

TEST(VfioProbe, MissingPeerToPeerFailsAForcedDevice) {
    VfioVmFixture vm;
    vm.plugged({.name = "a", .caps = kP2P});
    EXPECT_FALSE(vm.plug({.name = "b", .caps = kPlain, .properties = enable(OnOffAuto::On)}));
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_EQ(vm.services.devices().size(), 1u);
    EXPECT_EQ(vm.registry.entries().size(), 1u);
}

TEST(VfioProbe, BusyMigrationRefusesADeviceThatWouldBlock) {
    VfioVmFixture vm;
    vm.loop.run([&] { vm.blocker_list.set_busy(true); });
    const auto refused = vm.plug({.script = no_migration});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errnum(), EBUSY);
    const auto untracked = vm.plug({.name = "b", .script = no_log});
    ASSERT_FALSE(untracked);
    EXPECT_EQ(untracked.error().errnum(), EBUSY);
    EXPECT_TRUE(vm.services.devices().empty());
    EXPECT_TRUE(vm.registry.entries().empty());
    EXPECT_TRUE(vm.memory.trackers().empty());
}

TEST(VfioProbe, OnlyMigratableVmRefusesADeviceThatWouldBlock) {
    VfioVmFixture vm;
    vm.loop.run([&] { vm.blocker_list.set_only_migratable(); });
    const auto refused = vm.plug({.script = no_migration});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errnum(), EACCES);
    EXPECT_TRUE(vm.plug({.name = "b"}));
}

TEST(VfioProbe, DeviceThatBreaksBlocksUntilItIsReset) {
    VfioVmFixture vm;
    auto& device = vm.plugged({});
    vm.loop.run([&] { vm.blocker_list.set_busy(true); });  // in the middle of a migration
    device.io->fail_arc(MigState::Running, MigState::RunningP2P, EIO,
                        ScriptedDeviceIo::After::Lost);
    device.io->fail_call("reset", EIO);
    EXPECT_FALSE(vm.stop(RunState::Paused));
    ASSERT_EQ(vm.blockers().size(), 1u);
    EXPECT_TRUE(contains(vm.blockers()[0], "device a is broken"));
    EXPECT_TRUE(contains(vm.blockers()[0], "reset or unplug it"));
    EXPECT_EQ(vm.services.devices().at(0).state, "broken");
    EXPECT_EQ(vm.runstate.state(), RunState::Running);

    test::Sender sender(vm, device);
    EXPECT_FALSE(sender.prepare());
    // The VM lives without it.
    EXPECT_TRUE(vm.stop(RunState::Paused));
    EXPECT_TRUE(vm.start());

    ASSERT_TRUE(device.io->reset());
    device.migration->device_was_reset();
    VfioVmFixture::settle(device);
    EXPECT_TRUE(vm.blockers().empty());
    EXPECT_EQ(vm.services.devices().at(0).state, "running");
    EXPECT_TRUE(sender.prepare());
}

TEST(VfioProbe, DevicesWithoutAPathShareANameAndDifferByInstance) {
    VfioVmFixture vm;
    const auto realize = [&](ScriptedDeviceIo& io, util::Worker& worker) {
        std::unique_ptr<VfioDeviceMigration> made;
        vm.loop.run([&] {
            auto result = VfioDeviceMigration::realize(
                VfioVm{vm.loop, vm.env.env, vm.runstate, vm.memory, vm.blocker_list, vm.registry,
                       vm.services, nullptr},
                VfioIdentity{.id = "x"}, {}, io, worker, nullptr);
            if (result) made = std::move(*result);
        });
        return made;
    };
    auto worker = util::Worker::create("vfio/x");
    ScriptedDeviceIo first("x", kP2P, vm.log);
    ScriptedDeviceIo second("y", kP2P, vm.log);
    auto a = realize(first, **worker);
    auto b = realize(second, **worker);
    ASSERT_EQ(vm.registry.entries().size(), 2u);
    EXPECT_EQ(vm.registry.entries()[0]->section().idstr, "vfio");
    EXPECT_EQ(vm.registry.entries()[0]->section().instance_id, 0u);
    EXPECT_EQ(vm.registry.entries()[1]->section().instance_id, 1u);
    vm.loop.run([&] {
        a.reset();
        b.reset();
    });
}

}  // namespace
}  // namespace ferry::vfio
