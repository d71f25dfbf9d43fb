// SPDX-License-Identifier: BSD-2-Clause
// Whole migrations with VFIO devices: the good cases, every call held, and sessions that end in the
// middle. Failing calls: test-session-failures.cc, test-session-kernel.cc.
#include <cerrno>
#include <set>

#include "tests/unit/migration/device-session.h"

namespace ferry::test {
namespace {

using migration::Capability;
using migration::MigrationStatus;
using system::RunState;
using vfio::MigState;

TEST_F(DeviceSessionTest, TwoDevicesMoveWithTheVm) {
    make_pair();
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, DevicesWithoutPreCopyMoveToo) {
    auto config = small_device();
    config.caps.pre_copy = false;
    make_pair({config, config});
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, ShortReadsAndWritesChangeNothing) {
    auto config = small_device();
    config.state_bytes = 16 * 1024;
    make_pair({config, config});
    src->a().faults().limit_reads(1);
    dst->b().faults().limit_writes(1);
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, RejectedImageAtTheDestinationLetsTheSourceGoOn) {
    make_pair();
    dst->b().faults().fail({.pattern = "arc:resuming->stop", .nth = 1, .errnum = EINVAL});
    begin();
    finish();
    expect_source_goes_on("rejected image");
    EXPECT_NE(src->vm.error_desc().find("dev4"), std::string::npos) << src->vm.error_desc();
    EXPECT_NE(src->vm.error_desc().find("validating"), std::string::npos) << src->vm.error_desc();
}

TEST_F(DeviceSessionTest, HeldCallsAreNamedWhileEverythingElseAnswers) {
    make_pair();
    src->a().faults().clear_log();
    dst->a().faults().clear_log();
    begin();
    finish();
    std::set<std::string> at_source;
    std::set<std::string> at_destination;
    for (const auto& call : src->a().faults().log()) at_source.insert(call.name);
    for (const auto& call : dst->a().faults().log()) at_destination.insert(call.name);
    const auto hold_each = [&](const std::set<std::string>& names, auto side) {
        for (const std::string& name : names) {
            make_pair();
            SoftSide& held = side();
            held.a().faults().hold(name);
            begin();
            ASSERT_TRUE(held.wait_until_held(1)) << name;
            held.vm.loop.run([&] { EXPECT_NE(held.vm.status(), MigrationStatus::None) << name; });
            bool named = false;
            for (const auto& call : held.vm.activity.snapshot()) {
                named = named || call.who == "dev3";
            }
            EXPECT_TRUE(named) << name;
            held.a().faults().release();
            finish();
            EXPECT_EQ(src->vm.status(), MigrationStatus::Completed)
                << name << ": " << src->vm.error_desc();
        }
    };
    hold_each(at_source, [&]() -> SoftSide& { return *src; });
    hold_each(at_destination, [&]() -> SoftSide& { return *dst; });
}

TEST_F(DeviceSessionTest, CancelWhileAnArcIsHeldEndsWithTheVmRunning) {
    for (const char* call :
         {"set state pre-copy", "set state pre-copy-p2p", "set state stop-copy"}) {
        make_pair();
        src->a().faults().hold(call);
        begin();
        ASSERT_TRUE(src->wait_until_held(1)) << call;
        src->vm.loop.run([&] { src->vm.migration->migrate_cancel(); });
        EXPECT_EQ(src->vm.status(), MigrationStatus::Cancelling) << call;
        src->a().faults().release();
        finish();
        EXPECT_EQ(src->vm.status(), MigrationStatus::Cancelled) << call;
        expect_source_goes_on(call);
    }
}

TEST_F(DeviceSessionTest, PauseAndContinueInPreCopyBeginsTheDevicesAnew) {
    make_pair();
    ASSERT_TRUE(src->vm.set_capability(Capability::ReturnPath));
    set_downtime_limit_ms(0);  // or it would converge before we are through
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return src->a().faults().count("read state") > 0; }));
    // At once, so that no switchover comes between the two.
    int done = 0;
    src->vm.loop.run([&] {
        src->vm.runstate.user_stop([&](Result<> r) { done += r ? 1 : 100; });
        src->vm.runstate.user_cont([&](Result<> r) { done += r ? 1 : 100; });
    });
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return done == 2; }));
    src->a().change_state(10'000);
    set_downtime_limit_ms(2000);
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, ResetInPreCopyBeginsTheDeviceAnew) {
    make_pair();
    set_downtime_limit_ms(0);
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return src->a().faults().count("read state") > 0; }));
    ASSERT_TRUE(src->a().reset());
    src->a().change_state(5'000);
    set_downtime_limit_ms(2000);
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, FailedMigrationOfAPausedVmLeavesItsDevicesStopped) {
    make_pair();
    ASSERT_TRUE(src->vm.pause());
    dst->a().faults().fail({.pattern = "write state", .nth = 1, .errnum = EINVAL});
    begin();
    finish();
    EXPECT_EQ(src->vm.status(), MigrationStatus::Failed);
    EXPECT_EQ(src->vm.state(), RunState::Paused);
    EXPECT_EQ(src->a().real_state(), MigState::Stop);
    EXPECT_EQ(src->b().real_state(), MigState::Stop);
}

TEST_F(DeviceSessionTest, VmThatDoesNotStartAtTheDestinationCanBeContinuedThere) {
    make_pair();
    dst->a().faults().fail({.pattern = "arc:stop->running-p2p", .nth = 1, .errnum = EBUSY});
    begin();
    finish();
    EXPECT_EQ(dst->vm.status(), MigrationStatus::Failed);
    EXPECT_EQ(dst->vm.state(), RunState::Paused);
    ASSERT_TRUE(dst->vm.cont());
    EXPECT_EQ(dst->vm.state(), RunState::Running);
    EXPECT_EQ(src->vm.state(), RunState::PostMigrate);
    EXPECT_TRUE(same_ram(src->vm, dst->vm));
    EXPECT_EQ(src->a().digest(), dst->a().digest());
    EXPECT_EQ(dst->b().real_state(), MigState::Running);
}

TEST_F(DeviceSessionTest, LogThatCouldNotBeStoppedDoesNotSpoilTheNextMigration) {
    make_pair();
    src->a().faults().fail({.pattern = "stop dma log", .nth = 1, .errnum = EIO});
    for (int leg = 0; leg < 3; ++leg) {
        begin();
        finish();
        ASSERT_EQ(src->vm.status(), MigrationStatus::Completed) << leg << src->vm.error_desc();
        std::swap(src, dst);
    }
}

TEST_F(DeviceSessionTest, BackAndForthWithDevices) {
    make_pair();
    for (int leg = 0; leg < 4; ++leg) {
        begin();
        finish();
        ASSERT_EQ(src->vm.status(), MigrationStatus::Completed) << leg << src->vm.error_desc();
        ASSERT_EQ(src->a().digest(), dst->a().digest()) << leg;
        dst->a().change_state(1000);
        std::swap(src, dst);
    }
}

}  // namespace
}  // namespace ferry::test
