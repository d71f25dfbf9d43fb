// SPDX-License-Identifier: BSD-2-Clause
// Whole migrations with two VFIO devices: the good case, every device call failing in turn on
// either side, every call held, sessions that end in the middle.
#include <dirent.h>
#include <gtest/gtest.h>

#include "tests/support/test-vm-device.h"

namespace ferry::migration {
namespace {

using system::RunState;
using test::Guest;
using test::TestVm;
using test::TestVmDevice;
using vfio::MigState;

size_t count_entries(const char* directory) {
    size_t count = 0;
    DIR* dir = ::opendir(directory);
    while (::readdir(dir) != nullptr) ++count;
    ::closedir(dir);
    return count;
}

hw::TestDeviceConfig small_device() {
    hw::TestDeviceConfig config;
    config.state_bytes = 256 * 1024;
    return config;
}

// A VM with two devices.
struct Side {
    Side(util::Clock& clock, RunState initial, const hw::TestDeviceConfig& config,
         Guest guest = Guest::Idle)
        : vm(clock, initial, guest), a(vm, 3, config), b(vm, 4, config) {}
    // No attempt may be running when the devices go.
    ~Side() {
        a.faults().release();
        b.faults().release();
        (void)vm.wait_over();
        (void)vm.loop.wait_for([&] { return !vm.runstate.busy(); });
    }
    TestVm vm;
    TestVmDevice a;
    TestVmDevice b;
};

class DeviceSessionTest : public testing::Test {
 protected:
    void make_pair(const hw::TestDeviceConfig& config = small_device()) {
        dst.reset();
        src.reset();
        src = std::make_unique<Side>(clock, RunState::PreLaunch, config);
        dst = std::make_unique<Side>(clock, RunState::InMigrate, config);
        src->vm.fill_ram(7);
        src->a.change_state(100'000);
        src->b.change_state(50'000);
        ASSERT_TRUE(src->vm.start());
    }
    void begin() {
        auto [a, b] = make_memory_channel_pair();
        ASSERT_TRUE(dst->vm.incoming(std::move(b)));
        ASSERT_TRUE(src->vm.migrate(std::move(a)));
    }
    void finish() {
        ASSERT_TRUE(src->vm.wait_over());
        ASSERT_TRUE(dst->vm.wait_over());
    }
    void expect_moved() {
        EXPECT_EQ(src->vm.status(), MigrationStatus::Completed) << src->vm.error_desc();
        EXPECT_EQ(dst->vm.status(), MigrationStatus::Completed) << dst->vm.error_desc();
        EXPECT_EQ(dst->vm.state(), RunState::Running);
        EXPECT_TRUE(test::same_ram(src->vm, dst->vm));
        EXPECT_EQ(src->a.digest(), dst->a.digest());
        EXPECT_EQ(src->b.digest(), dst->b.digest());
        EXPECT_EQ(dst->a.real_state(), MigState::Running);
        EXPECT_EQ(dst->b.real_state(), MigState::Running);
        EXPECT_EQ(src->a.real_state(), MigState::Stop);
    }
    // After a failed attempt: the VM is where it was and so are the devices.
    void expect_source_goes_on(const std::string& which) {
        EXPECT_EQ(src->vm.state(), RunState::Running) << which << ": " << src->vm.error_desc();
        EXPECT_EQ(src->a.real_state(), MigState::Running) << which;
        EXPECT_EQ(src->b.real_state(), MigState::Running) << which;
        EXPECT_NE(dst->vm.state(), RunState::Running) << which;
    }

    util::SystemClock clock;
    std::unique_ptr<Side> src;
    std::unique_ptr<Side> dst;
};

TEST_F(DeviceSessionTest, TwoDevicesMoveWithTheVm) {
    make_pair();
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, DevicesWithoutPreCopyMoveToo) {
    auto config = small_device();
    config.caps.pre_copy = false;
    make_pair(config);
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, ShortReadsAndWritesChangeNothing) {
    auto config = small_device();
    config.state_bytes = 16 * 1024;
    make_pair(config);
    src->a.faults().limit_reads(1);
    dst->b.faults().limit_writes(1);
    begin();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, EveryDeviceCallFailingAtTheSourceLeavesTheVmRunning) {
    make_pair();
    src->a.faults().clear_log();
    begin();
    finish();
    expect_moved();
    const auto calls = src->a.faults().log();
    ASSERT_GT(calls.size(), 10U);
    for (size_t k = 1; k <= calls.size(); ++k) {
        const std::string which = "call " + std::to_string(k) + " " + calls[k - 1].name;
        make_pair();
        src->a.faults().fail({.pattern = "*", .nth = k, .errnum = EIO});
        begin();
        finish();
        if (src->vm.status() == MigrationStatus::Completed) {
            // A question whose answer the VM can do without, or the tidying up afterwards.
            EXPECT_EQ(dst->vm.state(), RunState::Running) << which;
            EXPECT_TRUE(test::same_ram(src->vm, dst->vm)) << which;
            EXPECT_EQ(src->a.digest(), dst->a.digest()) << which;
            continue;
        }
        EXPECT_EQ(src->vm.status(), MigrationStatus::Failed) << which;
        EXPECT_NE(src->vm.error_desc().find("dev3"), std::string::npos)
            << which << ": " << src->vm.error_desc();
        EXPECT_NE(src->vm.error_desc().find("Input/output error"), std::string::npos)
            << which << ": " << src->vm.error_desc();
        expect_source_goes_on(which);
        // and it can be tried again
        begin();
        finish();
        EXPECT_EQ(dst->vm.state(), RunState::Running) << which << ": " << src->vm.error_desc();
    }
}

TEST_F(DeviceSessionTest, EveryDeviceCallFailingAtTheDestinationLeavesTheSourceRunning) {
    make_pair();
    dst->a.faults().clear_log();
    begin();
    finish();
    expect_moved();
    const auto calls = dst->a.faults().log();
    ASSERT_GT(calls.size(), 4U);
    for (size_t k = 1; k <= calls.size(); ++k) {
        const std::string which = "call " + std::to_string(k) + " " + calls[k - 1].name;
        make_pair();
        dst->a.faults().fail({.pattern = "*", .nth = k, .errnum = EIO});
        begin();
        finish();
        if (dst->vm.status() == MigrationStatus::Completed) {
            EXPECT_EQ(dst->vm.state(), RunState::Running) << which;
            EXPECT_EQ(src->a.digest(), dst->a.digest()) << which;
            continue;
        }
        EXPECT_NE(src->vm.error_desc().find("dev3"), std::string::npos)
            << which << ": " << src->vm.error_desc();
        if (src->vm.state() == RunState::PostMigrate) {
            // It had GO: stopped on both sides, nothing lost, and said so.
            EXPECT_EQ(dst->vm.state(), RunState::Paused) << which;
            EXPECT_NE(src->vm.error_desc().find("'cont'"), std::string::npos) << which;
            continue;
        }
        expect_source_goes_on(which);
    }
}

TEST_F(DeviceSessionTest, NothingIsLeftBehindByFailedAttempts) {
    make_pair();
    begin();
    finish();
    const size_t fds = count_entries("/proc/self/fd");
    const size_t threads = count_entries("/proc/self/task");
    for (const char* fault : {"set state pre-copy", "read state", "set state stop-copy"}) {
        make_pair();
        src->a.faults().fail({.pattern = fault, .nth = 1, .errnum = EBUSY});
        begin();
        finish();
        EXPECT_EQ(count_entries("/proc/self/fd"), fds) << fault;
        EXPECT_EQ(count_entries("/proc/self/task"), threads) << fault;
    }
}

TEST_F(DeviceSessionTest, RejectedImageAtTheDestinationLetsTheSourceGoOn) {
    make_pair();
    dst->b.faults().fail({.pattern = "arc:resuming->stop", .nth = 1, .errnum = EINVAL});
    begin();
    finish();
    expect_source_goes_on("rejected image");
    EXPECT_NE(src->vm.error_desc().find("dev4"), std::string::npos) << src->vm.error_desc();
    EXPECT_NE(src->vm.error_desc().find("validating"), std::string::npos) << src->vm.error_desc();
}

TEST_F(DeviceSessionTest, HeldCallsAreNamedWhileEverythingElseAnswers) {
    make_pair();
    src->a.faults().clear_log();
    dst->a.faults().clear_log();
    begin();
    finish();
    std::set<std::string> at_source;
    std::set<std::string> at_destination;
    for (const auto& call : src->a.faults().log()) at_source.insert(call.name);
    for (const auto& call : dst->a.faults().log()) at_destination.insert(call.name);
    const auto hold_each = [&](const std::set<std::string>& names, auto side) {
        for (const std::string& name : names) {
            make_pair();
            Side& held = side();
            held.a.faults().hold(name);
            begin();
            held.a.faults().wait_until_held();
            held.vm.loop.run([&] { EXPECT_NE(held.vm.status(), MigrationStatus::None) << name; });
            bool named = false;
            for (const auto& call : held.vm.activity.snapshot()) {
                named = named || call.who == "dev3";
            }
            EXPECT_TRUE(named) << name;
            held.a.faults().release();
            finish();
            EXPECT_EQ(src->vm.status(), MigrationStatus::Completed)
                << name << ": " << src->vm.error_desc();
        }
    };
    hold_each(at_source, [&]() -> Side& { return *src; });
    hold_each(at_destination, [&]() -> Side& { return *dst; });
}

TEST_F(DeviceSessionTest, CancelWhileAnArcIsHeldEndsWithTheVmRunning) {
    for (const char* call :
         {"set state pre-copy", "set state pre-copy-p2p", "set state stop-copy"}) {
        make_pair();
        src->a.faults().hold(call);
        begin();
        src->a.faults().wait_until_held();
        src->vm.loop.run([&] { src->vm.migration->migrate_cancel(); });
        EXPECT_EQ(src->vm.status(), MigrationStatus::Cancelling) << call;
        src->a.faults().release();
        finish();
        EXPECT_EQ(src->vm.status(), MigrationStatus::Cancelled) << call;
        expect_source_goes_on(call);
    }
}

TEST_F(DeviceSessionTest, PauseAndContinueInPreCopyBeginsTheDevicesAnew) {
    make_pair();
    ASSERT_TRUE(src->vm.set_capability(Capability::ReturnPath));
    // Too little bandwidth to converge before we are through.
    ASSERT_TRUE(src->vm.on_loop([&] {
        Parameters slow = src->vm.migration->parameters();
        slow.downtime_limit_ms = 0;
        return src->vm.migration->set_parameters(slow);
    }));
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return src->a.faults().count("read state") > 0; }));
    int done = 0;
    src->vm.loop.run([&] {
        src->vm.runstate.user_stop([&](Result<> r) { done += r ? 1 : 100; });
        src->vm.runstate.user_cont([&](Result<> r) { done += r ? 1 : 100; });
    });
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return done == 2; }));
    src->a.change_state(10'000);
    ASSERT_TRUE(src->vm.on_loop([&] {
        Parameters fast = src->vm.migration->parameters();
        fast.downtime_limit_ms = 2000;
        return src->vm.migration->set_parameters(fast);
    }));
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, ResetInPreCopyBeginsTheDeviceAnew) {
    make_pair();
    ASSERT_TRUE(src->vm.on_loop([&] {
        Parameters slow = src->vm.migration->parameters();
        slow.downtime_limit_ms = 0;
        return src->vm.migration->set_parameters(slow);
    }));
    begin();
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return src->a.faults().count("read state") > 0; }));
    ASSERT_TRUE(src->a.reset());
    src->a.change_state(5'000);
    ASSERT_TRUE(src->vm.on_loop([&] {
        Parameters fast = src->vm.migration->parameters();
        fast.downtime_limit_ms = 2000;
        return src->vm.migration->set_parameters(fast);
    }));
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, FailedMigrationOfAPausedVmLeavesItsDevicesStopped) {
    make_pair();
    std::optional<Result<>> paused;
    src->vm.loop.run(
        [&] { src->vm.runstate.user_stop([&](Result<> r) { paused = std::move(r); }); });
    ASSERT_TRUE(src->vm.loop.wait_for([&] { return paused.has_value(); }));
    dst->a.faults().fail({.pattern = "write state", .nth = 1, .errnum = EINVAL});
    begin();
    finish();
    EXPECT_EQ(src->vm.status(), MigrationStatus::Failed);
    EXPECT_EQ(src->vm.state(), RunState::Paused);
    EXPECT_EQ(src->a.real_state(), MigState::Stop);
    EXPECT_EQ(src->b.real_state(), MigState::Stop);
}

TEST_F(DeviceSessionTest, SwitchoverAckWaitsForInitialData) {
    make_pair();
    for (TestVm* vm : {&src->vm, &dst->vm}) {
        ASSERT_TRUE(vm->set_capability(Capability::ReturnPath));
        ASSERT_TRUE(vm->set_capability(Capability::SwitchoverAck));
    }
    // The destination can't have loaded the initial data while its first write is held.
    dst->a.faults().hold("write state");
    begin();
    dst->a.faults().wait_until_held();
    EXPECT_EQ(src->vm.state(), RunState::Running);
    dst->a.faults().release();
    finish();
    expect_moved();
}

TEST_F(DeviceSessionTest, BackAndForthWithDevices) {
    make_pair();
    for (int leg = 0; leg < 4; ++leg) {
        begin();
        finish();
        ASSERT_EQ(src->vm.status(), MigrationStatus::Completed) << leg << src->vm.error_desc();
        ASSERT_EQ(src->a.digest(), dst->a.digest()) << leg;
        dst->a.change_state(1000);
        std::swap(src, dst);
    }
}

}  // namespace
}  // namespace ferry::migration
