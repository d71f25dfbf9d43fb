// SPDX-License-Identifier: BSD-2-Clause
// The destination's half: records from an untrusted peer, the driver's verdict, second attempts.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using migration::Capability;
using migration::SectionKind;
using system::RunState;
using test::Bytes;
using test::content_of;
using test::kAll;
using test::kP2P;
using test::kPlain;
using test::Receiver;
using test::RecordBody;
using test::ScriptedDeviceIo;
using test::Sender;
using test::VfioVmFixture;
using Outcome = migration::SaveVMHandlers::Outcome;
using Strings = std::vector<std::string>;

Bytes config_body(uint8_t value) {
    Bytes body = RecordBody().tag(2).take();
    for (const uint8_t byte : {uint8_t{0}, uint8_t{0}, uint8_t{0}, value}) {
        body.push_back(std::byte(byte));
    }
    const Bytes end = RecordBody().tag(1).take();
    body.insert(body.end(), end.begin(), end.end());
    return body;
}

struct LoadTest : ::testing::Test {
    VfioVmFixture vm{RunState::InMigrate};
    VfioVmFixture::Device& device = vm.plugged({});
    Receiver receiver{device};

    void load_everything(std::string_view content) {
        ASSERT_TRUE(receiver.setup());
        ASSERT_TRUE(receiver.load(SectionKind::Start, RecordBody().tag(3).tag(1).take()));
        ASSERT_TRUE(receiver.load(SectionKind::End, RecordBody().data(content).tag(1).take()));
        ASSERT_TRUE(receiver.load(SectionKind::Full, config_body(7)));
    }
    void forward_parts(Sender& sender) {
        const auto parts = sender.iterate();
        ASSERT_TRUE(parts);
        for (const Bytes& part : *parts) ASSERT_TRUE(receiver.load(SectionKind::Part, part));
    }
    // A body that must fail with EINVAL, leaving an attempt that can be cleaned up.
    void refuse(SectionKind kind, const Bytes& body, std::string_view reason) {
        ASSERT_TRUE(receiver.setup());
        const auto loaded = receiver.load(kind, body);
        ASSERT_FALSE(loaded);
        EXPECT_EQ(loaded.error().errnum(), EINVAL);
        EXPECT_NE(loaded.error().message().find("device a"), std::string::npos);
        EXPECT_NE(loaded.error().message().find(reason), std::string::npos)
            << loaded.error().message();
        receiver.cleanup(Outcome::Failed);
        EXPECT_EQ(device.io->open_streams(), 0);
    }
};

// --- states

struct LoadStates {
    MigCaps caps;
    Strings start;
};
class LoadStatesTest : public ::testing::TestWithParam<LoadStates> {};

TEST_P(LoadStatesTest, FromTheFirstSectionToARunningVm) {
    VfioVmFixture vm(RunState::InMigrate);
    auto& device = vm.plugged({.caps = GetParam().caps});
    Receiver receiver(device);
    ASSERT_TRUE(receiver.setup());
    EXPECT_EQ(device.io->state(), Resuming);
    ASSERT_TRUE(receiver.load(SectionKind::End, RecordBody().data("image").tag(1).take()));
    device.config.loading = [&] { EXPECT_EQ(device.io->state(), Resuming); };
    ASSERT_TRUE(receiver.load(SectionKind::Full, config_body(7)));
    vm.log.clear();
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(vm.log.changes(), (Strings{"a: set stop"}));
    EXPECT_EQ(device.io->open_streams(), 0);
    vm.log.clear();
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(vm.log.changes(), GetParam().start);
    receiver.cleanup(Outcome::Completed);
    EXPECT_EQ(device.io->state(), Running);
    EXPECT_EQ(device.io->content(), content_of("image"));
    EXPECT_EQ(device.config.value, 7u);
}

INSTANTIATE_TEST_SUITE_P(
    ByCapability, LoadStatesTest,
    ::testing::Values(LoadStates{kAll, {"a: set running-p2p", "a: set running"}},
                      LoadStates{kP2P, {"a: set running-p2p", "a: set running"}},
                      LoadStates{kPlain, {"a: set running"}}));

TEST_F(LoadTest, DestinationThatStaysPausedIsValidatedAndStopped) {
    load_everything("image");
    ASSERT_TRUE(receiver.validate());
    ASSERT_TRUE(vm.set_state(RunState::Paused));
    receiver.cleanup(Outcome::Completed);
    EXPECT_EQ(device.io->state(), Stop);
    Sender onwards(vm, device);  // it can migrate again at once
    ASSERT_TRUE(onwards.setup());
    ASSERT_TRUE(onwards.complete());
    onwards.cleanup(Outcome::Completed);
}

TEST_F(LoadTest, SnapshotLoadBeginsInStop) {
    ASSERT_TRUE(vm.start());
    ASSERT_TRUE(vm.stop(RunState::RestoreVm));
    load_everything("snapshot");
    ASSERT_TRUE(receiver.validate());
    receiver.cleanup(Outcome::Completed);
    ASSERT_TRUE(vm.start());
    EXPECT_EQ(device.io->content(), content_of("snapshot"));
}

TEST_F(LoadTest, RunningVmIsNotLoaded) {
    ASSERT_TRUE(vm.start());
    EXPECT_FALSE(receiver.setup());
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Running);
}

// --- records

TEST_F(LoadTest, OneByteAtATimeGivesTheSameImage) {
    VfioVmFixture source;
    auto& from = source.plugged({});
    const std::string image = "the image of a device, in pieces";
    from.io->set_content(content_of(image), 20, 10);
    from.io->set_transfer_limit(1);
    device.io->set_transfer_limit(1);
    Sender sender(source, from);
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(receiver.load(SectionKind::Start, sender.setup().value()));
    forward_parts(sender);
    ASSERT_TRUE(source.stop());
    ASSERT_TRUE(receiver.load(SectionKind::End, sender.complete().value()));
    ASSERT_TRUE(receiver.load(SectionKind::Full, sender.config().value()));
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(device.io->content(), content_of(image));
    EXPECT_EQ(vm.services.devices().at(0).loaded_bytes, image.size());
    sender.cleanup(Outcome::Completed);
    receiver.cleanup(Outcome::Completed);
}

TEST_F(LoadTest, BlockLongerThanTheStreamsBufferIsHandedOnInPieces) {
    const std::string image(5'000'000, 'x');
    load_everything(image);
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(device.io->content().size(), image.size());
    receiver.cleanup(Outcome::Completed);
}

TEST_F(LoadTest, EmptyBlockMeansNothing) {
    ASSERT_TRUE(receiver.setup());
    EXPECT_TRUE(receiver.load(SectionKind::Part, RecordBody().data("").tag(1).take()));
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, UnknownRecordIsRefused) {
    refuse(SectionKind::Part, RecordBody().tag(0x77).take(), "unknown record");
}

TEST_F(LoadTest, SetupWithoutItsEndIsRefused) {
    refuse(SectionKind::Start, RecordBody().tag(3).tag(4).take(), "setup record");
}

TEST_F(LoadTest, ConfigurationWithoutItsEndIsRefused) {
    Bytes body = config_body(1);
    body.back() = std::byte{9};
    refuse(SectionKind::Full, body, "configuration");
}

TEST_F(LoadTest, StateOnExtraChannelsIsRefusedWithTheRemedy) {
    refuse(SectionKind::Full, RecordBody().tag(6).take(), "x-migration-multifd-transfer");
}

TEST_F(LoadTest, MarkerWithoutTheCapabilityIsRefused) {
    refuse(SectionKind::Part, RecordBody().tag(5).take(), "switchover-ack");
}

TEST_F(LoadTest, DiscardThatWasNotAgreedOnIsRefused) {
    refuse(SectionKind::Part, RecordBody().tag(0xf1).take(), "not agreed on");
}

TEST_F(LoadTest, ConfigurationOfAnotherSizeIsRefusedAtOnce) {
    receiver.session.its_features.config_size = true;
    refuse(SectionKind::Start, RecordBody().tag(0xf2).u32(5).tag(3).tag(1).take(),
           "has 5 bytes at the source and 4 here");
}

TEST_F(LoadTest, ConfigurationOfTheSameSizeIsTaken) {
    receiver.session.its_features.config_size = true;
    ASSERT_TRUE(receiver.setup());
    EXPECT_TRUE(
        receiver.load(SectionKind::Start, RecordBody().tag(0xf2).u32(4).tag(3).tag(1).take()));
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, SizeOfTheConfigurationThatWasNotAgreedOnIsRefused) {
    refuse(SectionKind::Start, RecordBody().tag(0xf2).u32(4).tag(3).tag(1).take(), "not asked for");
}

TEST(VfioLoad, MarkerForADeviceWithoutPreCopyIsRefused) {
    VfioVmFixture vm(RunState::InMigrate);
    auto& device = vm.plugged({.caps = kP2P});
    EXPECT_FALSE(device.handlers->switchover_ack_needed());
    Receiver receiver(device);
    receiver.session.its_capabilities.set(Capability::SwitchoverAck, true);
    ASSERT_TRUE(receiver.setup());
    const auto loaded = receiver.load(SectionKind::Part, RecordBody().tag(5).take());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().errnum(), EINVAL);
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, EachDeviceConsentsOnce) {
    receiver.session.its_capabilities.set(Capability::SwitchoverAck, true);
    EXPECT_TRUE(device.handlers->switchover_ack_needed());
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(receiver.load(SectionKind::Part, RecordBody().data("x").tag(5).take()));
    ASSERT_TRUE(receiver.load(SectionKind::Part, RecordBody().tag(5).take()));
    EXPECT_EQ(receiver.session.approvals, 1);
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, StreamThatEndsAnywhereFailsWithoutHarm) {
    const Bytes body = RecordBody().data("image").tag(1).take();
    for (size_t length = 0; length < body.size(); ++length) {
        ASSERT_TRUE(receiver.setup());
        const auto loaded = receiver.load(
            SectionKind::End, Bytes(body.begin(), body.begin() + static_cast<ptrdiff_t>(length)));
        ASSERT_FALSE(loaded);
        EXPECT_EQ(loaded.error().kind(), ErrorKind::PeerClosed);
        receiver.cleanup(Outcome::Failed);
        EXPECT_EQ(device.io->open_streams(), 0);
    }
}

TEST_F(LoadTest, HugeAnnouncedBlockSizesNothing) {
    ASSERT_TRUE(receiver.setup());
    const auto loaded =
        receiver.load(SectionKind::Part, RecordBody().tag(4).u64(UINT64_MAX).u64(0).take());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().kind(), ErrorKind::PeerClosed);
    receiver.cleanup(Outcome::Failed);
}

// --- a session begun anew

TEST_F(LoadTest, DiscardResetsTheDeviceAndTakesTheNewImageOnly) {
    receiver.session.its_features.discard = true;
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(receiver.load(SectionKind::Part, RecordBody().data("old").tag(1).take()));
    vm.log.clear();
    ASSERT_TRUE(receiver.load(SectionKind::Part, RecordBody().tag(0xf1).data("new").tag(1).take()));
    EXPECT_EQ(vm.log.changes(), (Strings{"a: reset", "a: set stop", "a: set resuming"}));
    EXPECT_EQ(device.io->open_streams(), 1);
    ASSERT_TRUE(receiver.load(SectionKind::End, RecordBody().data("er").tag(1).take()));
    ASSERT_TRUE(receiver.load(SectionKind::Full, config_body(1)));
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(device.io->content(), content_of("newer"));
    receiver.cleanup(Outcome::Completed);
}

TEST_F(LoadTest, FailedResetAtADiscardFailsTheLoad) {
    receiver.session.its_features.discard = true;
    ASSERT_TRUE(receiver.setup());
    device.io->fail_call("reset", EIO);
    EXPECT_FALSE(receiver.load(SectionKind::Part, RecordBody().tag(0xf1).tag(1).take()));
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(vm.services.devices().at(0).state, "broken");
    EXPECT_EQ(vm.blockers().size(), 1u);
}

TEST_F(LoadTest, PauseAndContinueAtTheSourceArrivesAsOneImage) {
    VfioVmFixture source;
    auto& from = source.plugged({});
    from.io->set_content(content_of("first-version"), 10, 5);
    Sender sender(source, from);
    sender.session.its_features.discard = true;
    receiver.session.its_features.discard = true;
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(receiver.load(SectionKind::Start, sender.setup().value()));
    forward_parts(sender);
    ASSERT_TRUE(source.stop(RunState::Paused));
    ASSERT_TRUE(source.start());
    from.io->set_content(content_of("second-and-last-version"), 10, 5);
    forward_parts(sender);
    ASSERT_TRUE(source.stop());
    ASSERT_TRUE(receiver.load(SectionKind::End, sender.complete().value()));
    ASSERT_TRUE(receiver.load(SectionKind::Full, sender.config().value()));
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(device.io->content(), content_of("second-and-last-version"));
    sender.cleanup(Outcome::Completed);
    receiver.cleanup(Outcome::Completed);
}

// --- the driver's verdict

TEST_F(LoadTest, RefusedImageFailsTheValidationAndNamesTheDevice) {
    load_everything("image");
    device.io->fail_arc(Resuming, Stop, EINVAL);
    const auto valid = receiver.validate();
    ASSERT_FALSE(valid);
    EXPECT_EQ(valid.error().errnum(), EINVAL);
    EXPECT_NE(valid.error().message().find("device a: its driver does not accept"),
              std::string::npos);
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Stop);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST_F(LoadTest, ImageThatBringsTheDeviceIntoErrorFailsTheValidation) {
    load_everything("image");
    device.io->fail_arc(Resuming, Stop, EIO, ScriptedDeviceIo::After::Lost);
    EXPECT_FALSE(receiver.validate());
    EXPECT_EQ(device.io->state(), Stop);  // reset, and stopped as the VM is
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, DeviceThatTheSourceDoesNotHaveFailsTheValidation) {
    ASSERT_TRUE(receiver.setup());
    const auto valid = receiver.validate();
    ASSERT_FALSE(valid);
    EXPECT_NE(valid.error().message().find("no complete state"), std::string::npos);
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, SecondAttemptAfterAFailedOneWorks) {
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(receiver.load(SectionKind::Part, RecordBody().data("half").tag(1).take()));
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->state(), Stop);
    EXPECT_EQ(device.io->open_streams(), 0);
    load_everything("whole");
    ASSERT_TRUE(receiver.validate());
    EXPECT_EQ(device.io->content(), content_of("whole"));
    receiver.cleanup(Outcome::Completed);
}

TEST_F(LoadTest, AttemptThatFailsAfterValidationLeavesNoImageBehind) {
    load_everything("image");
    ASSERT_TRUE(receiver.validate());
    vm.log.clear();
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(vm.log.changes(), (Strings{"a: reset", "a: set stop"}));
}

TEST_F(LoadTest, RefusedResumingFailsTheSetupInTheFormerState) {
    device.io->fail_arc(Stop, Resuming, EIO);
    EXPECT_FALSE(receiver.setup());
    EXPECT_EQ(device.io->state(), Running);
    receiver.cleanup(Outcome::Failed);
    EXPECT_EQ(device.io->open_streams(), 0);
}

TEST_F(LoadTest, FailedWriteTellsDeviceAndOffset) {
    ASSERT_TRUE(receiver.setup());
    device.io->set_transfer_limit(2);
    device.io->fail_call("write", EIO, 3);
    const auto loaded = receiver.load(SectionKind::Part, RecordBody().data("image").tag(1).take());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().errnum(), EIO);
    EXPECT_NE(loaded.error().message().find("device a: writing its state, after 4 bytes"),
              std::string::npos);
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, ResetWhileLoadingFailsTheLoad) {
    ASSERT_TRUE(receiver.setup());
    ASSERT_TRUE(device.io->reset());
    device.migration->device_was_reset();
    VfioVmFixture::settle(device);
    const auto loaded = receiver.load(SectionKind::Part, RecordBody().data("image").tag(1).take());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("the device was reset"), std::string::npos);
    receiver.cleanup(Outcome::Failed);
}

TEST_F(LoadTest, BrokenDeviceRefusesTheLoad) {
    device.io->fail_arc(Stop, Resuming, EIO, ScriptedDeviceIo::After::Lost);
    device.io->fail_call("reset", EIO);
    EXPECT_FALSE(receiver.setup());
    receiver.cleanup(Outcome::Failed);
    const auto setup = receiver.setup();
    ASSERT_FALSE(setup);
    EXPECT_NE(setup.error().message().find("device a is broken"), std::string::npos);
    receiver.cleanup(Outcome::Failed);
}

}  // namespace
}  // namespace ferry::vfio
