// SPDX-License-Identifier: BSD-2-Clause
// Whole migrations between two VMs in this process.
#include <gtest/gtest.h>

#include "migration/return-path.h"
#include "tests/support/fault-channel.h"
#include "tests/support/test-vm.h"
#include "util/wire.h"

namespace ferry::migration {
namespace {

using system::RunState;
using test::Guest;
using test::TestVm;

class SessionTest : public testing::Test {
 protected:
    // A running source and a waiting destination.
    void make_pair(Guest guest = Guest::Dirtying) {
        src = std::make_unique<TestVm>(clock, RunState::PreLaunch, guest);
        dst = std::make_unique<TestVm>(clock, RunState::InMigrate, guest);
        src->fill_ram(1);
        ASSERT_TRUE(src->start());
    }
    void return_path() {
        ASSERT_TRUE(src->set_capability(Capability::ReturnPath));
        ASSERT_TRUE(dst->set_capability(Capability::ReturnPath));
    }
    void connect(TestVm& from, TestVm& to) {
        auto [a, b] = make_memory_channel_pair();
        ASSERT_TRUE(to.incoming(std::move(b)));
        ASSERT_TRUE(from.migrate(std::move(a)));
    }
    void expect_source_goes_on(const TestVm& vm) {
        EXPECT_EQ(vm.state(), RunState::Running);
        EXPECT_FALSE(vm.error_desc().empty());
    }

    util::SystemClock clock;
    std::unique_ptr<TestVm> src;
    std::unique_ptr<TestVm> dst;
};

TEST_F(SessionTest, RunningVmMovesWhileItsMemoryChanges) {
    make_pair();
    return_path();
    ASSERT_TRUE(dst->on_loop([&]() -> Result<> {
        dst->runstate.set_autostart(false);  // so that memory can be compared
        return {};
    }));
    connect(*src, *dst);
    ASSERT_TRUE(src->wait_over());
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
    EXPECT_EQ(dst->status(), MigrationStatus::Completed) << dst->error_desc();
    EXPECT_EQ(src->state(), RunState::PostMigrate);
    EXPECT_EQ(dst->state(), RunState::Paused);
    EXPECT_TRUE(test::same_ram(*src, *dst));
    EXPECT_EQ(src->statuses(),
              (std::vector<std::string>{"src setup", "src active", "src device", "src completed"}));
    EXPECT_EQ(dst->statuses(),
              (std::vector<std::string>{"dst setup", "dst active", "dst completed"}));
    const auto counters = src->migration->query().counters;
    ASSERT_TRUE(counters);
    EXPECT_GE(counters->dirty_sync_count, 2U);
    EXPECT_GT(counters->duplicate, 0U);
    EXPECT_EQ(counters->remaining, 0U);
    EXPECT_TRUE(counters->downtime_ms);
}

TEST_F(SessionTest, DestinationRunsOnlyAfterTheSourceGaveTheVmUp) {
    make_pair();
    return_path();
    connect(*src, *dst);
    ASSERT_TRUE(dst->loop.wait_for([&] { return dst->state() == RunState::Running; }));
    EXPECT_NE(src->state(), RunState::Running);
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->state(), RunState::PostMigrate);
}

TEST_F(SessionTest, WithoutReturnPathTheLastByteCompletes) {
    make_pair(Guest::Idle);
    connect(*src, *dst);
    ASSERT_TRUE(src->wait_over());
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
    EXPECT_EQ(dst->status(), MigrationStatus::Completed) << dst->error_desc();
    EXPECT_EQ(dst->state(), RunState::Running);
    EXPECT_TRUE(test::same_ram(*src, *dst));
}

TEST_F(SessionTest, PausedVmArrivesPaused) {
    make_pair(Guest::Idle);
    return_path();
    std::optional<Result<>> paused;
    src->loop.run([&] { src->runstate.user_stop([&](Result<> r) { paused = std::move(r); }); });
    ASSERT_TRUE(src->loop.wait_for([&] { return paused.has_value(); }));
    connect(*src, *dst);
    ASSERT_TRUE(src->wait_over());
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(src->state(), RunState::PostMigrate);
    EXPECT_EQ(dst->state(), RunState::Paused);
    EXPECT_TRUE(test::same_ram(*src, *dst));
}

TEST_F(SessionTest, BackAndForthFourTimes) {
    make_pair();
    return_path();
    TestVm* from = src.get();
    TestVm* to = dst.get();
    for (int leg = 0; leg < 4; ++leg) {
        connect(*from, *to);
        ASSERT_TRUE(from->wait_over());
        ASSERT_TRUE(to->wait_over());
        ASSERT_EQ(from->status(), MigrationStatus::Completed) << leg << from->error_desc();
        ASSERT_EQ(to->state(), RunState::Running) << leg;
        std::swap(from, to);
    }
}

TEST_F(SessionTest, PauseBeforeSwitchoverWaitsForContinue) {
    make_pair();
    return_path();
    ASSERT_TRUE(src->set_capability(Capability::PauseBeforeSwitchover));
    connect(*src, *dst);
    ASSERT_TRUE(
        src->loop.wait_for([&] { return src->status() == MigrationStatus::PreSwitchover; }));
    EXPECT_EQ(src->state(), RunState::FinishMigrate);
    const auto wrong =
        src->on_loop([&] { return src->migration->migrate_continue(MigrationStatus::Active); });
    EXPECT_FALSE(wrong);
    ASSERT_TRUE(src->on_loop(
        [&] { return src->migration->migrate_continue(MigrationStatus::PreSwitchover); }));
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

TEST_F(SessionTest, CancelInPreSwitchoverBringsTheVmBack) {
    make_pair();
    return_path();
    ASSERT_TRUE(src->set_capability(Capability::PauseBeforeSwitchover));
    connect(*src, *dst);
    ASSERT_TRUE(
        src->loop.wait_for([&] { return src->status() == MigrationStatus::PreSwitchover; }));
    src->loop.run([&] { src->migration->migrate_cancel(); });
    ASSERT_TRUE(src->wait_over());
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Cancelled);
    EXPECT_EQ(src->state(), RunState::Running);
    EXPECT_EQ(dst->status(), MigrationStatus::Failed);
    EXPECT_EQ(dst->state(), RunState::InMigrate);
    // and both may try again
    connect(*src, *dst);
    ASSERT_TRUE(
        src->loop.wait_for([&] { return src->status() == MigrationStatus::PreSwitchover; }));
    ASSERT_TRUE(src->on_loop(
        [&] { return src->migration->migrate_continue(MigrationStatus::PreSwitchover); }));
    ASSERT_TRUE(src->wait_over());
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(dst->status(), MigrationStatus::Completed) << dst->error_desc();
}

TEST_F(SessionTest, StopWhileAMigrationHoldsTheVmLeavesItPausedAfterACancel) {
    make_pair();
    return_path();
    ASSERT_TRUE(src->set_capability(Capability::PauseBeforeSwitchover));
    connect(*src, *dst);
    ASSERT_TRUE(
        src->loop.wait_for([&] { return src->status() == MigrationStatus::PreSwitchover; }));
    src->loop.run([&] {
        src->runstate.user_stop([](Result<>) {});
        src->migration->migrate_cancel();
    });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->state(), RunState::Paused);
}

TEST_F(SessionTest, DifferentMachineIsRefusedAndTheSourceSaysWhy) {
    for (const bool asked : {true, false}) {
        src = std::make_unique<TestVm>(clock, RunState::PreLaunch);
        dst = std::make_unique<TestVm>(clock, RunState::InMigrate, Guest::Idle, "other-machine");
        if (asked) return_path();
        ASSERT_TRUE(src->start());
        connect(*src, *dst);
        ASSERT_TRUE(src->wait_over());
        ASSERT_TRUE(dst->wait_over());
        EXPECT_EQ(src->status(), MigrationStatus::Failed);
        expect_source_goes_on(*src);
        for (const TestVm* vm : {src.get(), dst.get()}) {
            EXPECT_NE(vm->error_desc().find("other-machine"), std::string::npos)
                << vm->error_desc();
        }
    }
}

TEST_F(SessionTest, BrokenLineAtEveryCallEndsCleanlyOnBothSides) {
    // Count the calls of a good run, then break each in turn, on either side.
    for (const bool break_source : {true, false}) {
        int calls = 0;
        for (int k = 0; k <= calls; ++k) {
            make_pair(Guest::Idle);
            return_path();
            auto [a, b] = make_memory_channel_pair();
            const auto counter = std::make_shared<std::atomic<int>>(0);
            auto& broken = break_source ? a : b;
            broken = std::make_unique<test::FaultChannel>(std::move(broken), counter, k);
            ASSERT_TRUE(dst->incoming(std::move(b)));
            ASSERT_TRUE(src->migrate(std::move(a)));
            ASSERT_TRUE(src->wait_over());
            ASSERT_TRUE(dst->wait_over());
            if (k == 0) {
                ASSERT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
                calls = *counter;
                ASSERT_GT(calls, 5);
                continue;
            }
            const bool src_runs = src->state() == RunState::Running;
            const bool dst_runs = dst->state() == RunState::Running;
            EXPECT_FALSE(src_runs && dst_runs) << "call " << k;
            if (src->status() == MigrationStatus::Failed) {
                EXPECT_FALSE(src->error_desc().empty());
                // Given up for good, or running again.
                EXPECT_TRUE(src_runs || src->state() == RunState::PostMigrate)
                    << "call " << k << " " << to_string(src->state());
                if (!src_runs) {
                    EXPECT_NE(src->error_desc().find("handed over"), std::string::npos);
                }
            } else {
                EXPECT_EQ(src->status(), MigrationStatus::Completed) << "call " << k;
            }
            if (!src_runs && !dst_runs) {
                EXPECT_EQ(dst->state(), RunState::Paused) << "call " << k << dst->error_desc();
            }
        }
    }
}

TEST_F(SessionTest, SnapshotGoesToAChannelAndComesBack) {
    make_pair(Guest::Idle);
    auto [a, b] = make_memory_channel_pair();
    std::optional<Result<>> saved;
    std::optional<Result<>> loaded;
    auto other = std::make_unique<TestVm>(clock, RunState::PreLaunch);
    ASSERT_TRUE(other->on_loop([&] {
        return other->migration->load_snapshot(std::move(b),
                                               [&](Result<> r) { loaded = std::move(r); });
    }));
    ASSERT_TRUE(src->on_loop([&] {
        return src->migration->save_snapshot(std::move(a),
                                             [&](Result<> r) { saved = std::move(r); });
    }));
    ASSERT_TRUE(src->loop.wait_for([&] { return saved.has_value(); }));
    ASSERT_TRUE(other->loop.wait_for([&] { return loaded.has_value(); }));
    EXPECT_TRUE(*saved) << saved->error().message();
    EXPECT_TRUE(*loaded) << loaded->error().message();
    EXPECT_EQ(src->state(), RunState::Running);
    EXPECT_EQ(other->state(), RunState::Running);
    EXPECT_TRUE(test::same_ram(*src, *other));
}

}  // namespace
}  // namespace ferry::migration
