// SPDX-License-Identifier: BSD-2-Clause
// Devices stop and start with the VM, in two passes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <future>

#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using system::RunState;
using test::kAll;
using test::kP2P;
using test::kPlain;
using test::kPreCopy;
using test::ScriptedDeviceIo;
using test::Sender;
using test::VfioVmFixture;
using After = ScriptedDeviceIo::After;
using Outcome = migration::SaveVMHandlers::Outcome;
using Strings = std::vector<std::string>;

TEST(VfioRunState, PauseAndContinueLeadThroughP2P) {
    VfioVmFixture vm;
    vm.plugged({.caps = kP2P});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set running-p2p", "a: set stop"}));
    vm.log.clear();
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set running-p2p", "a: set running"}));
    EXPECT_EQ(test::steps_of(vm.env.timeline),
              (Strings{"a quiesce", "a stop", "a prepare-start", "a start"}));
}

TEST(VfioRunState, DeviceWithoutP2PHasOnePass) {
    VfioVmFixture vm;
    vm.plugged({.caps = kPlain});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set stop", "a: set running"}));
}

TEST(VfioRunState, AllDevicesAreQuiescentBeforeAnyStopsAndBeforeAnyStarts) {
    VfioVmFixture vm;
    vm.plugged({.name = "a", .depth = 1});
    vm.plugged({.name = "b", .depth = 2});
    const auto all_prepared_first = [&](const Strings& prepares) {
        const Strings changes = vm.log.changes();
        ASSERT_EQ(changes.size(), 4u);
        Strings first(changes.begin(), changes.begin() + 2);
        std::ranges::sort(first);
        EXPECT_EQ(first, prepares);
        vm.log.clear();
    };
    ASSERT_TRUE(vm.stop(RunState::Paused));
    all_prepared_first({"a: set running-p2p", "b: set running-p2p"});
    ASSERT_TRUE(vm.start());
    all_prepared_first({"a: set running-p2p", "b: set running-p2p"});
}

TEST(VfioRunState, DeeperDevicesStopFirstAndStartLast) {
    VfioVmFixture vm;
    vm.plugged({.name = "up", .depth = 1});
    vm.plugged({.name = "low", .depth = 2});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    EXPECT_EQ(vm.log.changes(), (Strings{"low: set running-p2p", "up: set running-p2p",
                                         "low: set stop", "up: set stop"}));
    vm.log.clear();
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(vm.log.changes(), (Strings{"up: set running-p2p", "low: set running-p2p",
                                         "up: set running", "low: set running"}));
}

TEST(VfioRunState, FirstStartOfADeviceThatRunsAlreadyAsksNothing) {
    VfioVmFixture vm(RunState::PreLaunch);
    vm.plugged({});
    ASSERT_TRUE(vm.start());
    EXPECT_TRUE(vm.log.changes().empty());
}

TEST(VfioRunState, MainLoopGoesOnWhileADeviceStops) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kPlain});
    device.io->hold_arc(Stop);
    std::promise<bool> stopped;
    vm.loop.post([&] {
        vm.runstate.stop(RunState::Paused,
                         [&](Result<> result) { stopped.set_value(result.has_value()); });
    });
    device.io->wait_until_held();
    bool served = false;
    vm.loop.run([&] { served = true; });  // would hang otherwise
    EXPECT_TRUE(served);
    device.io->release_arcs();
    EXPECT_TRUE(stopped.get_future().get());
}

// --- in a migration

struct PreCopyTest : ::testing::Test {
    VfioVmFixture vm;
    VfioVmFixture::Device& device = vm.plugged({});
    Sender sender{vm, device};
    void SetUp() override {
        ASSERT_TRUE(sender.setup());
        ASSERT_EQ(device.io->state(), PreCopy);
        vm.log.clear();
    }
    void TearDown() override { sender.cleanup(Outcome::Failed); }
};

TEST_F(PreCopyTest, SwitchoverKeepsTheSessionInStopCopy) {
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set pre-copy-p2p", "a: set stop-copy"}));
    EXPECT_EQ(device.io->open_streams(), 1);
}

TEST_F(PreCopyTest, PauseKeepsTheSessionInStopCopy) {
    ASSERT_TRUE(vm.stop(RunState::Paused));
    EXPECT_EQ(device.io->state(), StopCopy);
    EXPECT_EQ(device.io->open_streams(), 1);
}

TEST_F(PreCopyTest, StopForAnotherReasonEndsTheSession) {
    for (const RunState reason : {RunState::IoError, RunState::Shutdown, RunState::InternalError}) {
        VfioVmFixture other;
        auto& its_device = other.plugged({});
        Sender its_sender(other, its_device);
        ASSERT_TRUE(its_sender.setup());
        ASSERT_TRUE(other.stop(reason));
        EXPECT_EQ(its_device.io->state(), Stop);
        EXPECT_EQ(its_device.io->open_streams(), 0);
        its_sender.cleanup(Outcome::Failed);
    }
}

TEST_F(PreCopyTest, ContinueAfterAPauseEndsTheSession) {
    ASSERT_TRUE(vm.stop(RunState::Paused));
    vm.log.clear();
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set running-p2p", "a: set running"}));
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST(VfioRunState, CancelBetweenThePassesDoesNotBreakTheBarrier) {
    VfioVmFixture vm;
    auto& early = vm.plugged({.name = "a"});
    auto& late = vm.plugged({.name = "b"});
    Sender from_early(vm, early);
    Sender from_late(vm, late);
    ASSERT_TRUE(from_early.setup());
    ASSERT_TRUE(from_late.setup());
    late.io->hold_arc(PreCopyP2P);
    std::promise<bool> stopped;
    vm.loop.post([&] {
        vm.runstate.stop(RunState::Paused,
                         [&](Result<> result) { stopped.set_value(result.has_value()); });
    });
    late.io->wait_until_held();
    vm.loop.run([] {});  // both have been told by now
    VfioVmFixture::settle(early);
    ASSERT_EQ(early.io->state(), PreCopyP2P);
    from_early.cleanup(Outcome::Failed);
    EXPECT_EQ(early.io->state(), RunningP2P);  // out of its session, still quiescent
    late.io->release_arcs();
    EXPECT_TRUE(stopped.get_future().get());
    EXPECT_EQ(early.io->state(), Stop);
    EXPECT_EQ(late.io->state(), StopCopy);
    from_late.cleanup(Outcome::Failed);
    EXPECT_EQ(late.io->state(), Stop);
}

// --- when it fails: errors are returned, the change is undone

TEST(VfioRunState, FailedPrepareUndoesTheStopAndNamesTheDevice) {
    VfioVmFixture vm;
    vm.plugged({.name = "a"});
    auto& failing = vm.plugged({.name = "b"});
    failing.io->fail_arc(Running, RunningP2P, EIO);
    const auto stopped = vm.stop(RunState::Paused);
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().errnum(), EIO);
    EXPECT_NE(stopped.error().message().find("device b"), std::string::npos);
    EXPECT_EQ(vm.runstate.state(), RunState::Running);
    Strings changes = vm.log.changes();
    std::ranges::sort(changes);
    EXPECT_EQ(changes, (Strings{"a: set running", "a: set running-p2p", "b: set running-p2p"}));
    EXPECT_TRUE(vm.stop(RunState::Paused));
}

TEST(VfioRunState, FailedStopUndoesTheOthersStop) {
    VfioVmFixture vm;
    auto& fine = vm.plugged({.name = "a"});
    auto& failing = vm.plugged({.name = "b"});
    failing.io->fail_arc(RunningP2P, Stop, EIO);
    EXPECT_FALSE(vm.stop(RunState::Paused));
    EXPECT_EQ(fine.io->state(), Running);
    EXPECT_EQ(failing.io->state(), Running);
    EXPECT_EQ(vm.runstate.state(), RunState::Running);
}

TEST(VfioRunState, FailedSwitchoverKeepsTheSessionThatDidNotStop) {
    VfioVmFixture vm;
    auto& device = vm.plugged({});
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    device.io->fail_arc(PreCopyP2P, StopCopy, EIO);
    EXPECT_FALSE(vm.stop(RunState::FinishMigrate));
    EXPECT_EQ(device.io->state(), PreCopy);
    EXPECT_EQ(device.io->open_streams(), 1);
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST(VfioRunState, FailedStartLeavesTheVmStoppedAndMayBeTriedAgain) {
    VfioVmFixture vm;
    auto& fine = vm.plugged({.name = "a"});
    auto& failing = vm.plugged({.name = "b"});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    failing.io->fail_arc(RunningP2P, Running, EIO);
    EXPECT_FALSE(vm.start());
    EXPECT_EQ(vm.runstate.state(), RunState::Paused);
    EXPECT_EQ(fine.io->state(), Stop);
    EXPECT_EQ(failing.io->state(), Stop);
    EXPECT_TRUE(vm.start());
    EXPECT_EQ(failing.io->state(), Running);
}

TEST(VfioRunState, DeviceResetByAFailedStopRunsWithTheVm) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kPlain});
    device.io->fail_arc(Running, Stop, EIO, After::Lost);
    const auto stopped = vm.stop(RunState::Paused);
    ASSERT_FALSE(stopped);
    EXPECT_NE(stopped.error().message().find("the device was reset"), std::string::npos);
    EXPECT_EQ(device.io->state(), Running);
}

TEST(VfioRunState, HalfLoadedDeviceDoesNotStart) {
    VfioVmFixture vm(RunState::InMigrate);
    auto& device = vm.plugged({});
    test::Receiver receiver(device);
    ASSERT_TRUE(receiver.setup());
    vm.log.clear();
    const auto started = vm.start();
    ASSERT_FALSE(started);
    EXPECT_NE(started.error().message().find("still being loaded"), std::string::npos);
    EXPECT_EQ(device.io->state(), Resuming);
    EXPECT_TRUE(vm.log.changes().empty());
    receiver.cleanup(Outcome::Failed);
}

// --- resets by others

TEST(VfioRunState, ResetWhilePausedLeavesTheDeviceStopped) {
    VfioVmFixture vm;
    auto& device = vm.plugged({});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    ASSERT_TRUE(device.io->reset());
    device.migration->device_was_reset();
    VfioVmFixture::settle(device);
    EXPECT_EQ(device.io->state(), Stop);
    EXPECT_TRUE(vm.start());
    EXPECT_EQ(device.io->state(), Running);
}

// --- events

TEST(VfioRunState, EachStateIsAnEventWhereTheDeviceWantsThem) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.properties = {.migration_events = true}});
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    ASSERT_TRUE(sender.complete());
    sender.cleanup(Outcome::Completed);
    const std::string who = "a /machine/peripheral/a ";
    EXPECT_EQ(vm.events(),
              (Strings{who + "pre-copy", who + "pre-copy-p2p", who + "stop-copy", who + "stop"}));
}

TEST(VfioRunState, NoEventsUnlessTheDeviceWantsThem) {
    VfioVmFixture vm;
    vm.plugged({});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    EXPECT_TRUE(vm.events().empty());
}

TEST(VfioRunState, RecoveryAndResetAreEventsButNotTheFailure) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kPlain, .properties = {.migration_events = true}});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    device.io->fail_arc(Stop, Running, EIO, After::Lost);
    EXPECT_FALSE(vm.start());
    const std::string who = "a /machine/peripheral/a ";
    EXPECT_EQ(vm.events(), (Strings{who + "stop", who + "running", who + "stop"}));
}

}  // namespace
}  // namespace ferry::vfio
