// SPDX-License-Identifier: BSD-2-Clause
// The state machine of one device and its one recovery policy.
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "hw/vfio/migration-state.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/migration-fixture.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using test::ScriptedDeviceIo;
using After = ScriptedDeviceIo::After;
using Strings = std::vector<std::string>;

// One device, driven from the test's thread, which stands for its worker.
class StateTest : public ::testing::Test, public DeviceState::Listener {
 public:
    StateTest() { status->label = "a"; }

    void state_changed(MigState state) override { changes.emplace_back(to_string(state)); }
    void device_broken(const std::string& reason) override { broken_by = reason; }
    void device_repaired() override { broken_by.reset(); }

    // Brings the device to where a test begins.
    void go(std::initializer_list<MigState> states) {
        for (const MigState state : states) ASSERT_TRUE(device.set_state(state, "test"));
        log.clear();
        changes.clear();
    }

    test::TestEnv env;
    test::CallLog log;
    ScriptedDeviceIo io{"a", test::kAll, log};
    std::shared_ptr<DeviceStatus> status = std::make_shared<DeviceStatus>();
    DeviceState device{io, env.env, status, VmActivity::Running, *this};
    Strings changes;
    std::optional<std::string> broken_by;
};

TEST_F(StateTest, WhereItIsAlreadyTheDriverIsNotAsked) {
    EXPECT_TRUE(device.set_state(Running, "test"));
    EXPECT_TRUE(log.lines().empty());
    EXPECT_TRUE(changes.empty());
}

TEST_F(StateTest, SavingSessionGoesOnIntoStopCopyAndEndsWithStop) {
    go({PreCopy});
    const MigSession first = device.session();
    ASSERT_NE(first.stream, nullptr);
    ASSERT_TRUE(device.set_state(PreCopyP2P, "test"));
    ASSERT_TRUE(device.set_state(StopCopy, "test"));
    EXPECT_EQ(device.session().stream, first.stream);
    EXPECT_EQ(device.session().number, first.number);
    ASSERT_TRUE(device.set_state(Stop, "the end"));
    EXPECT_EQ(device.session().stream, nullptr);
    EXPECT_EQ(device.why_session_ended(), "the end");
    EXPECT_EQ(io.open_streams(), 1);  // the one in this test's hand
}

TEST_F(StateTest, EachSessionHasItsOwnNumber) {
    go({PreCopy});
    const uint64_t first = device.session().number;
    go({Running, PreCopy});
    EXPECT_NE(device.session().number, first);
    EXPECT_EQ(io.open_streams(), 1);
}

TEST_F(StateTest, FromLoadingToSavingTheSessionIsAnother) {
    device.set_vm(VmActivity::Stopped);
    go({Resuming});
    const uint64_t loading = device.session().number;
    ASSERT_TRUE(device.set_state(StopCopy, "test"));
    EXPECT_NE(device.session().number, loading);
    EXPECT_EQ(io.open_streams(), 1);
}

// --- when a change fails

TEST_F(StateTest, RefusedChangeLeavesTheDeviceWhereItWas) {
    io.fail_arc(Running, PreCopy, EBUSY);
    const auto changed = device.set_state(PreCopy, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EBUSY);
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(log.lines(), (Strings{"a: set pre-copy", "a: get state"}));
    EXPECT_TRUE(changes.empty());
}

TEST_F(StateTest, ChangeThatFailsHalfwayGoesBackToTheFormerState) {
    io.fail_arc(RunningP2P, Stop, EIO);
    const auto changed = device.set_state(Stop, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EIO);
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(io.state(), Running);
    EXPECT_EQ(log.changes(), (Strings{"a: set stop", "a: set running"}));
    EXPECT_EQ(changes, (Strings{"running"}));  // it moved, so this is news
}

TEST_F(StateTest, ChangeThatHappenedWithoutADescriptorIsTakenBack) {
    io.fail_arc(Running, PreCopy, EMFILE, After::HappensAnyway);
    ASSERT_FALSE(device.set_state(PreCopy, "test"));
    EXPECT_EQ(io.state(), Running);
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(device.session().stream, nullptr);
}

TEST_F(StateTest, FailedStopOfASavingDeviceKeepsItsSession) {
    go({PreCopy});
    io.fail_arc(PreCopyP2P, StopCopy, EIO);
    ASSERT_FALSE(device.set_state(StopCopy, "test"));
    EXPECT_EQ(device.state(), PreCopy);
    EXPECT_EQ(io.state(), PreCopy);
    EXPECT_NE(device.session().stream, nullptr);
}

TEST_F(StateTest, LostSessionIsNotBegunAnewByTheRecovery) {
    go({PreCopy});
    io.fail_arc(RunningP2P, Stop, EIO);  // PRE_COPY -> STOP leads through RUNNING
    ASSERT_FALSE(device.set_state(Stop, "test"));
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(device.session().stream, nullptr);
    EXPECT_EQ(log.changes(), (Strings{"a: set stop", "a: set running"}));
    EXPECT_EQ(io.open_streams(), 0);
}

TEST_F(StateTest, WithoutAWayBackTheDriverSaysWhereTheDeviceIs) {
    io.fail_arc(RunningP2P, Stop, EIO);
    io.fail_arc(RunningP2P, Running, ENXIO);
    const auto changed = device.set_state(Stop, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EIO);
    EXPECT_NE(changed.error().message().find("going back to running"), std::string::npos);
    EXPECT_EQ(device.state(), RunningP2P);
    EXPECT_EQ(log.changes(), (Strings{"a: set stop", "a: set running"}));
}

TEST_F(StateTest, DeviceInErrorIsResetAndNeverAskedToChange) {
    go({PreCopy});
    io.fail_arc(PreCopy, PreCopyP2P, EIO, After::Lost);
    const auto changed = device.set_state(PreCopyP2P, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EIO);
    EXPECT_NE(changed.error().message().find("the device was reset"), std::string::npos);
    EXPECT_EQ(log.lines(), (Strings{"a: set pre-copy-p2p", "a: get state", "a: reset"}));
    EXPECT_EQ(changes, (Strings{"running"}));
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(device.session().stream, nullptr);
    ASSERT_EQ(env.log.lines().size(), 1u);  // somebody is told
}

TEST_F(StateTest, ResetDeviceOfAStoppedVmIsStopped) {
    device.set_vm(VmActivity::Stopped);
    go({Stop});
    io.fail_arc(Stop, StopCopy, EIO, After::Lost);
    ASSERT_FALSE(device.set_state(StopCopy, "test"));
    EXPECT_EQ(device.state(), Stop);
    EXPECT_EQ(log.changes(), (Strings{"a: set stop-copy", "a: reset", "a: set stop"}));
    EXPECT_EQ(changes, (Strings{"running", "stop"}));
}

TEST_F(StateTest, DriverThatCannotSayWhereTheDeviceIsGetsAReset) {
    io.fail_arc(Running, PreCopy, EIO);
    io.fail_call("get state", ENODEV);
    ASSERT_FALSE(device.set_state(PreCopy, "test"));
    EXPECT_EQ(log.changes(), (Strings{"a: set pre-copy", "a: reset"}));
    EXPECT_EQ(device.state(), Running);
}

TEST_F(StateTest, DeviceThatCannotBeResetIsBrokenAndTheVmmLives) {
    io.fail_arc(Running, PreCopy, EIO, After::Lost);
    io.fail_call("reset", ETIMEDOUT);
    const auto changed = device.set_state(PreCopy, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EIO);  // the first error
    EXPECT_NE(changed.error().message().find("broken"), std::string::npos);
    EXPECT_TRUE(device.broken());
    ASSERT_TRUE(broken_by);
    log.clear();
    const auto again = device.set_state(Stop, "test");
    ASSERT_FALSE(again);
    EXPECT_NE(again.error().message().find("reset or unplug it"), std::string::npos);
    EXPECT_TRUE(log.lines().empty());
}

TEST_F(StateTest, BrokenDeviceIsUsableAgainAfterSomebodyResetIt) {
    io.fail_arc(Running, PreCopy, EIO, After::Lost);
    io.fail_call("reset", ETIMEDOUT);
    ASSERT_FALSE(device.set_state(PreCopy, "test"));
    ASSERT_TRUE(io.reset());
    device.was_reset_by_others();
    EXPECT_FALSE(device.broken());
    EXPECT_FALSE(broken_by);
    EXPECT_TRUE(device.set_state(PreCopy, "test"));
}

// --- sessions that end behind the VMM's back

TEST_F(StateTest, SecondDataSessionIsRefusedAndClosed) {
    go({PreCopy});
    io.add_stream_at(PreCopyP2P);
    const auto changed = device.set_state(PreCopyP2P, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EBADF);
    EXPECT_EQ(io.open_streams(), 0);
    EXPECT_EQ(device.session().stream, nullptr);
    EXPECT_EQ(device.state(), Running);  // what remains of PRE_COPY
}

TEST_F(StateTest, UnnoticedResetShowsUpAsASecondSession) {
    go({PreCopy});
    ASSERT_TRUE(io.reset());
    const auto changed = device.set_state(PreCopyP2P, "test");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().errnum(), EBADF);
    EXPECT_EQ(io.open_streams(), 0);
    EXPECT_EQ(io.state(), device.state());
}

TEST_F(StateTest, ResetByOthersEndsTheSession) {
    go({PreCopy});
    ASSERT_TRUE(io.reset());
    device.was_reset_by_others();
    EXPECT_EQ(device.session().stream, nullptr);
    EXPECT_EQ(device.why_session_ended(), "the device was reset");
    EXPECT_EQ(device.state(), Running);
    EXPECT_EQ(changes, (Strings{"running"}));
}

TEST_F(StateTest, ResetByOthersOfAStoppedVmsDeviceStopsIt) {
    device.set_vm(VmActivity::Stopped);
    go({Stop});
    ASSERT_TRUE(io.reset());
    device.was_reset_by_others();
    EXPECT_EQ(io.state(), Stop);
    EXPECT_EQ(device.state(), Stop);
}

TEST_F(StateTest, ResetThatANewSessionFollowedDoesNotEndThatOne) {
    go({PreCopy, Running});
    ASSERT_TRUE(io.reset());
    ASSERT_TRUE(device.set_state(PreCopy, "test"));
    device.was_reset_by_others();
    EXPECT_NE(device.session().stream, nullptr);
    EXPECT_EQ(device.state(), PreCopy);
}

TEST_F(StateTest, FailingStreamOfALivingSessionIsNoReset) {
    go({PreCopy});
    EXPECT_TRUE(device.session_lives(device.session().number));
    const uint64_t number = device.session().number;
    ASSERT_TRUE(io.reset());
    EXPECT_FALSE(device.session_lives(number));
    EXPECT_EQ(device.state(), Running);
}

TEST_F(StateTest, DriverThatReportsAnErrorIsReset) {
    go({PreCopy});
    const uint64_t number = device.session().number;
    io.fail_arc(PreCopy, PreCopyP2P, EIO, After::Lost);
    ASSERT_FALSE(io.set_mig_state(PreCopyP2P));
    EXPECT_FALSE(device.session_lives(number));
    EXPECT_EQ(device.state(), Running);
}

// Every change that a migration makes, each arc of it failing once in each way: afterwards the
// cached state is the real one, no stream is left over, and the device can go on.
TEST_F(StateTest, EachArcMayFailOnceInAnyWay) {
    struct Change {
        std::vector<MigState> before;
        MigState to;
        std::vector<std::pair<MigState, MigState>> arcs;
    };
    const std::vector<Change> table = {
        {{}, PreCopy, {{Running, PreCopy}}},
        {{PreCopy}, PreCopyP2P, {{PreCopy, PreCopyP2P}}},
        {{}, RunningP2P, {{Running, RunningP2P}}},
        {{StopCopy}, RunningP2P, {{StopCopy, Stop}, {Stop, RunningP2P}}},
        {{PreCopy, PreCopyP2P}, StopCopy, {{PreCopyP2P, StopCopy}}},
        {{RunningP2P}, Stop, {{RunningP2P, Stop}}},
        {{PreCopy}, Stop, {{PreCopy, Running}, {Running, RunningP2P}, {RunningP2P, Stop}}},
        {{Stop}, StopCopy, {{Stop, StopCopy}}},
        {{StopCopy}, Stop, {{StopCopy, Stop}}},
        {{RunningP2P}, Running, {{RunningP2P, Running}}},
        {{PreCopy}, Running, {{PreCopy, Running}}},
        {{Stop}, Resuming, {{Stop, Resuming}}},
        {{Resuming}, Stop, {{Resuming, Stop}}},
    };
    for (const Change& change : table) {
        for (const auto& [from, to] : change.arcs) {
            for (const After after : {After::Stays, After::Lost, After::HappensAnyway}) {
                SCOPED_TRACE(std::string(to_string(from)) + " -> " + std::string(to_string(to)));
                test::CallLog calls;
                ScriptedDeviceIo one("b", test::kAll, calls);
                auto its_status = std::make_shared<DeviceStatus>();
                DeviceState driven(one, env.env, its_status, VmActivity::Running, *this);
                for (const MigState state : change.before) {
                    ASSERT_TRUE(driven.set_state(state, "test"));
                }
                one.fail_arc(from, to, EIO, after);
                const auto changed = driven.set_state(change.to, "test");
                ASSERT_FALSE(changed);
                EXPECT_EQ(changed.error().errnum(), EIO);
                EXPECT_FALSE(driven.broken());
                EXPECT_EQ(driven.state(), one.state());
                EXPECT_EQ(one.open_streams(), driven.session().stream ? 1 : 0);
                EXPECT_EQ(driven.session().stream != nullptr,
                          session_of(driven.state()) != SessionKind::None);
                EXPECT_TRUE(driven.set_state(Running, "test"));
            }
        }
    }
}

}  // namespace
}  // namespace ferry::vfio
