// SPDX-License-Identifier: BSD-2-Clause
// The source's half: states, bytes on the stream, sessions that end, what is left behind.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using migration::Capability;
using system::RunState;
using test::Bytes;
using test::content_of;
using test::kAll;
using test::kP2P;
using test::kPlain;
using test::kPreCopy;
using test::RecordBody;
using test::ScriptedDeviceIo;
using test::Sender;
using test::VfioVmFixture;
using Outcome = migration::SaveVMHandlers::Outcome;
using Strings = std::vector<std::string>;

Bytes end_of_state() {
    return RecordBody().tag(1).take();
}

// A VM with one device whose content is "initial" + "dirty" + "rest".
struct SaveTest : ::testing::Test {
    VfioVmFixture vm;
    VfioVmFixture::Device& device = vm.plugged({.script = [](ScriptedDeviceIo& io) {
        io.set_content(content_of("initialdirtyrest"), 12, 7);
    }});
    Sender sender{vm, device};
};

// --- the states of a save, by what the device can

struct SaveStates {
    MigCaps caps;
    Strings setup, stop, complete, cleanup;
};
class SaveStatesTest : public ::testing::TestWithParam<SaveStates> {};

TEST_P(SaveStatesTest, RunningVm) {
    const SaveStates& expected = GetParam();
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = expected.caps});
    Sender sender(vm, device);
    const auto changes = [&] {
        const Strings lines = vm.log.changes();
        vm.log.clear();
        return lines;
    };
    ASSERT_TRUE(sender.prepare());
    ASSERT_TRUE(sender.setup());
    EXPECT_EQ(changes(), expected.setup);
    ASSERT_TRUE(sender.iterate());
    EXPECT_EQ(changes(), Strings());
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(changes(), expected.stop);
    ASSERT_TRUE(sender.complete());
    ASSERT_TRUE(sender.config());
    EXPECT_EQ(changes(), expected.complete);
    EXPECT_EQ(device.io->state(), StopCopy);  // leaving it is no part of the pause
    ASSERT_TRUE(vm.set_state(RunState::PostMigrate));
    sender.cleanup(Outcome::Completed);
    EXPECT_EQ(changes(), expected.cleanup);
    EXPECT_EQ(device.io->open_streams(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    ByCapability, SaveStatesTest,
    ::testing::Values(
        SaveStates{kAll,
                   {"a: set pre-copy"},
                   {"a: set pre-copy-p2p", "a: set stop-copy"},
                   {},
                   {"a: set stop"}},
        SaveStates{kPreCopy, {"a: set pre-copy"}, {"a: set stop-copy"}, {}, {"a: set stop"}},
        SaveStates{
            kP2P, {}, {"a: set running-p2p", "a: set stop"}, {"a: set stop-copy"}, {"a: set stop"}},
        SaveStates{kPlain, {}, {"a: set stop"}, {"a: set stop-copy"}, {"a: set stop"}}));

TEST(VfioSave, PausedVmStaysStoppedThroughoutAndIsSentAtOnce) {
    VfioVmFixture vm;
    auto& device = vm.plugged({});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    vm.log.clear();
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    EXPECT_FALSE(device.handlers->is_active_iterate());
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    ASSERT_TRUE(sender.complete());
    sender.cleanup(Outcome::Completed);
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set stop-copy", "a: set stop"}));
}

TEST(VfioSave, DeviceOfAVmThatNeverRanIsStoppedFirst) {
    VfioVmFixture vm(RunState::PreLaunch);
    auto& device = vm.plugged({});
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    EXPECT_EQ(device.io->state(), Stop);
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Stop);
}

TEST(VfioSave, SnapshotNeedsNoPreCopyAndEndsInStop) {
    VfioVmFixture vm;
    auto& device = vm.plugged(
        {.script = [](ScriptedDeviceIo& io) { io.set_content(content_of("image"), 3, 3); }});
    ASSERT_TRUE(vm.stop(RunState::SaveVm));
    vm.log.clear();
    Sender sender(vm, device);
    sender.session.its_mode = migration::SaveSession::Mode::Snapshot;
    sender.session.its_capabilities.set(Capability::Multifd, true);  // has no channels here
    ASSERT_TRUE(sender.prepare());
    ASSERT_TRUE(sender.setup());
    EXPECT_FALSE(device.handlers->is_active_iterate());
    EXPECT_EQ(sender.complete().value(), RecordBody().data("image").tag(1).take());
    sender.cleanup(Outcome::Completed);
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set stop-copy", "a: set stop"}));
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(device.io->state(), Running);
}

// --- the bytes

TEST_F(SaveTest, BodiesOfAWholeMigration) {
    device.config.value = 0x11223344;
    device.io->set_transfer_limit(6);
    EXPECT_EQ(sender.setup().value(), RecordBody().tag(3).tag(1).take());
    EXPECT_EQ(device.handlers->state_pending_estimate(), 12u);
    const auto parts = sender.iterate();
    ASSERT_TRUE(parts);
    EXPECT_EQ(*parts, (std::vector<Bytes>{RecordBody().data("initia").tag(1).take(),
                                          RecordBody().data("ldirty").tag(1).take()}));
    EXPECT_EQ(device.handlers->state_pending_estimate(), 0u);
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(sender.complete().value(), RecordBody().data("rest").tag(1).take());
    Bytes config = RecordBody().tag(2).take();
    for (const int byte : {0x11, 0x22, 0x33, 0x44}) config.push_back(std::byte(byte));
    const Bytes end = end_of_state();
    config.insert(config.end(), end.begin(), end.end());
    EXPECT_EQ(sender.config().value(), config);
    sender.cleanup(Outcome::Completed);
}

TEST_F(SaveTest, OnlyImageBytesAreCounted) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(sender.iterate());
    EXPECT_EQ(vm.services.bytes_sent(), 12u);
    ASSERT_TRUE(vm.stop());
    ASSERT_TRUE(sender.complete());
    ASSERT_TRUE(sender.config());
    EXPECT_EQ(vm.services.bytes_sent(), 16u);
    EXPECT_EQ(vm.services.devices().at(0).sent_bytes, 16u);
    vm.services.reset_bytes_sent();
    EXPECT_EQ(vm.services.bytes_sent(), 0u);
    EXPECT_EQ(vm.services.devices().at(0).sent_bytes, 0u);
    sender.cleanup(Outcome::Completed);
}

TEST_F(SaveTest, NothingForNowIsAnEmptyBodyAndDone) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(sender.iterate());
    const auto parts = sender.iterate();
    ASSERT_TRUE(parts);
    EXPECT_EQ(*parts, std::vector<Bytes>{end_of_state()});
    EXPECT_EQ(device.handlers->state_pending_estimate(), 0u);
    sender.cleanup(Outcome::Failed);
}

TEST_F(SaveTest, InitialDataSentReplacesTheEndOnceWhenTheAckIsWanted) {
    sender.session.its_capabilities.set(Capability::SwitchoverAck, true);
    device.io->set_transfer_limit(6);
    ASSERT_TRUE(sender.setup());
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().data("initia").tag(1).take());
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().data("ldirty").tag(5).take());
    EXPECT_EQ(sender.iterate_once().value(), end_of_state());
    sender.cleanup(Outcome::Failed);
}

TEST(VfioSave, EmptyImageMigrates) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kPlain});
    device.io->set_stop_copy_bytes(0);
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(sender.complete().value(), end_of_state());
    sender.cleanup(Outcome::Completed);
}

TEST(VfioSave, AnnouncedSizeZeroDoesNotLoseTheImage) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kPlain, .script = [](ScriptedDeviceIo& io) {
                                   io.set_content(content_of("image"));
                                   io.set_stop_copy_bytes(0);
                               }});
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(sender.complete().value(), RecordBody().data("image").tag(1).take());
    sender.cleanup(Outcome::Completed);
}

TEST_F(SaveTest, TimelineShowsTheDevicesPartOfThePause) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    ASSERT_TRUE(sender.complete());
    ASSERT_TRUE(sender.config());
    EXPECT_EQ(test::steps_of(vm.env.timeline),
              (Strings{"a quiesce", "a stop", "a save", "a config"}));
    EXPECT_EQ(vm.env.timeline.snapshot()[2].bytes, 16u);
    sender.cleanup(Outcome::Completed);
}

// --- what is still to be sent

TEST_F(SaveTest, ExactPendingIsTheSizeAfterTheStopAlone) {
    ASSERT_TRUE(sender.setup());
    device.io->set_stop_copy_bytes(5000);
    EXPECT_EQ(device.handlers->state_pending_exact().value(), 5000u);
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(device.handlers->state_pending_exact().value(), 5000u);
    sender.cleanup(Outcome::Failed);
}

TEST_F(SaveTest, UnknownSizeCountsAsHugeAndIsToldOnce) {
    ASSERT_TRUE(sender.setup());
    device.io->fail_calls("size", EIO);
    EXPECT_EQ(device.handlers->state_pending_exact().value(), 100ULL << 30);
    EXPECT_EQ(device.handlers->state_pending_exact().value(), 100ULL << 30);
    EXPECT_EQ(vm.env.log.lines().size(), 1u);
    sender.cleanup(Outcome::Failed);
}

TEST(VfioSave, DeviceWithoutPreCopyIsInvisibleToTheEstimate) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kP2P});
    device.io->set_content(content_of("image"));
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    EXPECT_EQ(device.handlers->state_pending_estimate(), 0u);
    EXPECT_FALSE(device.handlers->is_active_iterate());
    EXPECT_EQ(device.handlers->state_pending_exact().value(), 5u);
    sender.cleanup(Outcome::Failed);
}

// --- refusals and failures

TEST_F(SaveTest, CapabilitiesThatCannotWorkAreRefusedNamingTheDevice) {
    for (const Capability capability : {Capability::PostcopyRam, Capability::BackgroundSnapshot}) {
        sender.session.its_capabilities = {};
        sender.session.its_capabilities.set(capability, true);
        const auto prepared = sender.prepare();
        ASSERT_FALSE(prepared);
        EXPECT_EQ(prepared.error().errnum(), EOPNOTSUPP);
        EXPECT_NE(prepared.error().message().find("device a"), std::string::npos);
    }
    EXPECT_TRUE(vm.log.changes().empty());
}

TEST_F(SaveTest, RefusedPreCopyFailsTheSetupAndChangesNothing) {
    device.io->fail_arc(Running, PreCopy, EBUSY);
    const auto setup = sender.setup();
    ASSERT_FALSE(setup);
    EXPECT_EQ(setup.error().errnum(), EBUSY);
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST_F(SaveTest, FailedReadInPreCopyTellsDeviceStateAndOffset) {
    ASSERT_TRUE(sender.setup());
    device.io->set_transfer_limit(6);
    device.io->fail_call("read", EIO, 2);
    ASSERT_TRUE(sender.iterate_once());
    const auto part = sender.iterate_once();
    ASSERT_FALSE(part);
    EXPECT_EQ(part.error().errnum(), EIO);
    EXPECT_NE(part.error().message().find("device a: reading its state in pre-copy, after 6 bytes"),
              std::string::npos)
        << part.error().message();
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
}

TEST_F(SaveTest, FailedReadAfterTheStopTellsDeviceStateAndOffset) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    device.io->fail_call("read", EIO);
    const auto complete = sender.complete();
    ASSERT_FALSE(complete);
    EXPECT_NE(complete.error().message().find("in stop-copy, after 0 bytes"), std::string::npos);
    ASSERT_TRUE(vm.start());
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST(VfioSave, RefusedStopCopyFailsTheCompletionInStop) {
    VfioVmFixture vm;
    auto& device = vm.plugged({.caps = kP2P});
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    device.io->fail_arc(Stop, StopCopy, EIO);
    EXPECT_FALSE(sender.complete());
    EXPECT_EQ(device.io->state(), Stop);
    ASSERT_TRUE(vm.start());
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
}

TEST_F(SaveTest, CancelInPreCopyLeavesTheDeviceRunning) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(sender.iterate());
    vm.log.clear();
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set running"}));
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST_F(SaveTest, FailureWithThePausedVmLeavesTheDeviceStopped) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop(RunState::Paused));
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Stop);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST(VfioSave, FailureOfAVmThatWasPausedBeforeLeavesTheDeviceStopped) {
    VfioVmFixture vm;
    auto& device = vm.plugged({});
    ASSERT_TRUE(vm.stop(RunState::Paused));
    Sender sender(vm, device);
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    ASSERT_TRUE(sender.complete());
    ASSERT_TRUE(vm.set_state(RunState::Paused));
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Stop);
}

TEST_F(SaveTest, FailedStopAfterCompletionIsReportedOnly) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    ASSERT_TRUE(sender.complete());
    device.io->fail_calls("set stop", EIO);
    sender.cleanup(Outcome::Completed);
    EXPECT_EQ(vm.env.log.lines().size(), 1u);
    EXPECT_EQ(vm.services.devices().at(0).state, "stop-copy");
}

TEST_F(SaveTest, SecondMigrationAfterAFailedOneWorks) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(sender.iterate());
    sender.cleanup(Outcome::Failed);
    Sender again(vm, device);
    ASSERT_TRUE(again.setup());
    ASSERT_TRUE(again.iterate());
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(again.complete().value(), RecordBody().data("rest").tag(1).take());
    again.cleanup(Outcome::Completed);
}

TEST_F(SaveTest, DeviceThatFailsToLeavePreCopyOnceIsAskedAgain) {
    ASSERT_TRUE(sender.setup());
    device.io->fail_arc(PreCopy, Running, EBUSY);
    sender.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST_F(SaveTest, SizeOfTheConfigurationIsToldToAPeerThatAskedForIt) {
    sender.session.its_features.config_size = true;
    EXPECT_EQ(sender.setup().value(), RecordBody().tag(0xf2).u32(4).tag(3).tag(1).take());
    sender.cleanup(Outcome::Failed);
}

TEST_F(SaveTest, SessionLeftOverFromAFailedCleanupIsLeftByTheNextSetup) {
    ASSERT_TRUE(sender.setup());
    device.io->fail_calls("set running", EIO);
    sender.cleanup(Outcome::Failed);
    ASSERT_EQ(device.io->state(), PreCopy);
    EXPECT_EQ(vm.env.log.lines().size(), 1u);
    device.io->mend_calls("set running");
    vm.log.clear();
    Sender again(vm, device);
    ASSERT_TRUE(again.setup());
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set running", "a: set pre-copy"}));
    again.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
}

// --- sessions that end in pre-copy

struct DeadSessionTest : SaveTest {
    void SetUp() override {
        sender.session.its_features.discard = true;
        ASSERT_TRUE(sender.setup());
        ASSERT_TRUE(sender.iterate());
    }
    void TearDown() override {
        sender.cleanup(Outcome::Failed);
        EXPECT_EQ(device.io->open_streams(), 0);
    }
    void pause_and_continue() {
        ASSERT_TRUE(vm.stop(RunState::Paused));
        ASSERT_TRUE(vm.start());
    }
    void reset() {
        ASSERT_TRUE(device.io->reset());
        device.migration->device_was_reset();
        VfioVmFixture::settle(device);
    }
};

TEST_F(DeadSessionTest, PauseAndContinueBeginsAnewAfterADiscard) {
    pause_and_continue();
    device.io->set_content(content_of("INITIALDIRTYREST"), 12, 7);
    ASSERT_TRUE(device.handlers->is_active_iterate());
    EXPECT_EQ(sender.iterate_once().value(),
              RecordBody().tag(0xf1).data("INITIALDIRTY").tag(1).take());
    EXPECT_EQ(device.io->state(), PreCopy);
    EXPECT_EQ(sender.iterate_once().value(), end_of_state());  // one DISCARD is enough
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(sender.complete().value(), RecordBody().data("REST").tag(1).take());
}

TEST_F(DeadSessionTest, ResetByTheGuestBeginsAnewAfterADiscard) {
    reset();
    ASSERT_TRUE(device.handlers->is_active_iterate());
    EXPECT_EQ(sender.iterate_once().value(),
              RecordBody().tag(0xf1).data("initialdirty").tag(1).take());
}

TEST_F(DeadSessionTest, ResetThatOnlyTheStreamNoticesBeginsAnew) {
    ASSERT_TRUE(device.io->reset());  // device_was_reset() is still to come
    EXPECT_EQ(sender.iterate_once().value(), end_of_state());
    ASSERT_TRUE(device.handlers->is_active_iterate());
    EXPECT_EQ(sender.iterate_once().value(),
              RecordBody().tag(0xf1).data("initialdirty").tag(1).take());
}

TEST_F(DeadSessionTest, CompletionBeginsAnewWhereNoRoundCameInBetween) {
    pause_and_continue();
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(device.io->state(), Stop);
    EXPECT_EQ(sender.complete().value(),
              RecordBody().tag(0xf1).data("initialdirtyrest").tag(1).take());
}

TEST_F(DeadSessionTest, ResetOfThePausedVmIsSentAnewByTheCompletion) {
    ASSERT_TRUE(vm.stop(RunState::Paused));
    reset();
    EXPECT_EQ(device.io->state(), Stop);
    ASSERT_TRUE(device.handlers->is_active_iterate());  // to tell the destination early
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().tag(0xf1).tag(1).take());
    EXPECT_FALSE(device.handlers->is_active_iterate());
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    EXPECT_EQ(sender.complete().value(), RecordBody().data("initialdirtyrest").tag(1).take());
}

TEST_F(DeadSessionTest, StopForAnotherReasonIsSentAnewByTheCompletion) {
    ASSERT_TRUE(vm.stop(RunState::IoError));
    ASSERT_TRUE(vm.stop(RunState::FinishMigrate));
    EXPECT_EQ(sender.complete().value(),
              RecordBody().tag(0xf1).data("initialdirtyrest").tag(1).take());
}

TEST_F(DeadSessionTest, TowardsADestinationWithoutDiscardTheAttemptFailsAndSaysWhy) {
    sender.session.its_features.discard = false;
    pause_and_continue();
    const auto part = sender.iterate_once();
    ASSERT_FALSE(part);
    EXPECT_NE(part.error().message().find("device a"), std::string::npos);
    EXPECT_NE(part.error().message().find("the VM was continued"), std::string::npos);
    EXPECT_NE(part.error().message().find("migrate again"), std::string::npos);
}

TEST_F(DeadSessionTest, TheReasonOfAFailedCompletionNamesTheReset) {
    sender.session.its_features.discard = false;
    reset();
    ASSERT_TRUE(vm.stop());
    const auto complete = sender.complete();
    ASSERT_FALSE(complete);
    EXPECT_NE(complete.error().message().find("the device was reset"), std::string::npos);
}

TEST_F(DeadSessionTest, RefusedNewSessionFailsTheAttempt) {
    pause_and_continue();
    device.io->fail_arc(Running, PreCopy, EBUSY);
    EXPECT_FALSE(sender.iterate_once());
    EXPECT_EQ(device.io->state(), Running);
}

TEST_F(DeadSessionTest, ConsentToSwitchOverIsAskedForOnce) {
    sender.session.its_capabilities.set(Capability::SwitchoverAck, true);
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().tag(5).take());
    pause_and_continue();
    EXPECT_EQ(sender.iterate_once().value(),
              RecordBody().tag(0xf1).data("initialdirty").tag(1).take());
}

TEST_F(SaveTest, SessionWithoutSentBytesIsReplacedInSilence) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop(RunState::Paused));
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().data("initialdirty").tag(1).take());
    sender.cleanup(Outcome::Failed);
}

TEST_F(SaveTest, VmContinuedDuringItsMigrationGoesIntoPreCopy) {
    ASSERT_TRUE(vm.stop(RunState::Paused));
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.start());
    ASSERT_TRUE(device.handlers->is_active_iterate());
    EXPECT_EQ(sender.iterate_once().value(), RecordBody().data("initialdirty").tag(1).take());
    EXPECT_EQ(device.io->state(), PreCopy);
    sender.cleanup(Outcome::Failed);
}

TEST_F(SaveTest, SessionThatDiesInTheMiddleOfTheCompletionFailsTheAttempt) {
    ASSERT_TRUE(sender.setup());
    ASSERT_TRUE(vm.stop());
    device.io->set_transfer_limit(4);
    device.io->fail_call("read", ENODEV, 3);
    const auto complete = sender.complete();
    ASSERT_FALSE(complete);
    EXPECT_EQ(complete.error().errnum(), ENODEV);
    sender.cleanup(Outcome::Failed);
}

TEST(VfioSave, TwoDevicesOneTornDownByAReset) {
    VfioVmFixture vm;
    auto& a = vm.plugged({.name = "a"});
    auto& b = vm.plugged({.name = "b"});
    a.io->set_content(content_of("aaaa"), 4, 4);
    b.io->set_content(content_of("bbbb"), 4, 4);
    Sender from_a(vm, a);
    Sender from_b(vm, b);
    from_a.session.its_features.discard = from_b.session.its_features.discard = true;
    ASSERT_TRUE(from_a.setup());
    ASSERT_TRUE(from_b.setup());
    ASSERT_TRUE(from_a.iterate());
    ASSERT_TRUE(from_b.iterate());
    ASSERT_TRUE(a.io->reset());
    a.migration->device_was_reset();
    VfioVmFixture::settle(a);
    ASSERT_TRUE(vm.stop());
    EXPECT_EQ(from_a.complete().value(), RecordBody().tag(0xf1).data("aaaa").tag(1).take());
    EXPECT_EQ(from_b.complete().value(), end_of_state());  // its session lived on
    from_a.cleanup(Outcome::Completed);
    from_b.cleanup(Outcome::Completed);
}

}  // namespace
}  // namespace ferry::vfio
