// SPDX-License-Identifier: BSD-2-Clause
// A VM with VFIO devices to a file and back: savevm and loadvm.
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/support/leftovers.h"
#include "tests/unit/migration/device-session.h"

namespace ferry::test {
namespace {

using migration::FileAddress;
using system::RunState;
using vfio::MigState;

class DeviceSnapshot : public testing::Test {
 protected:
    DeviceSnapshot() {
        std::string path = (std::filesystem::temp_directory_path() / "ferry-XXXXXX").string();
        EXPECT_NE(::mkdtemp(path.data()), nullptr);
        directory_ = path;
        file_ = {.path = directory_ / "snapshot"};
    }
    ~DeviceSnapshot() override { std::filesystem::remove_all(directory_); }

    // With memory and devices of its own content.
    std::unique_ptr<SoftSide> make_vm(uint32_t seed, RunState state = RunState::Running) {
        auto vm =
            std::make_unique<SoftSide>(clock_, RunState::PreLaunch, std::vector(2, small_device()));
        vm->vm.fill_ram(seed);
        vm->a().change_state(1000 * seed);
        EXPECT_TRUE(vm->vm.start());
        if (state == RunState::Paused) {
            EXPECT_TRUE(vm->vm.pause());
        }
        return vm;
    }
    Result<> save(SoftSide& side) {
        auto cancel = *util::EventFd::create();
        auto channel = migration::connect_channel(file_, cancel);
        if (!channel) return std::move(channel).error();
        return side.vm.await([&](system::Done done) {
            EXPECT_TRUE(side.vm.migration->save_snapshot(std::move(*channel), std::move(done)));
        });
    }
    Result<> load(SoftSide& side) {
        auto channel = migration::open_incoming_channel(file_);
        if (!channel) return std::move(channel).error();
        return side.vm.await([&](system::Done done) {
            EXPECT_TRUE(side.vm.migration->load_snapshot(std::move(*channel), std::move(done)));
        });
    }
    void expect_state(SoftSide& side, RunState state, const std::string& which = "") {
        EXPECT_EQ(to_string(side.vm.state()), to_string(state)) << which;
        const MigState rest = state == RunState::Running ? MigState::Running : MigState::Stop;
        for (const auto& device : side.devices) EXPECT_EQ(device->real_state(), rest) << which;
    }
    void expect_same(SoftSide& one, SoftSide& other, const std::string& which = "") {
        EXPECT_TRUE(same_ram(one.vm, other.vm)) << which;
        for (size_t i = 0; i < one.devices.size(); ++i) {
            EXPECT_EQ(one.devices[i]->digest(), other.devices[i]->digest()) << which;
        }
    }
    // Fails each call that the first device of a VM gets while `act` is done to it, one after the
    // other, and lets `judge` see how that ended.
    void sweep(const std::function<Result<>(SoftSide&)>& act,
               const std::function<void(SoftSide&, const Result<>&, const std::string&)>& judge);

    util::SystemClock clock_;
    std::filesystem::path directory_;
    FileAddress file_;
};

void DeviceSnapshot::sweep(
    const std::function<Result<>(SoftSide&)>& act,
    const std::function<void(SoftSide&, const Result<>&, const std::string&)>& judge) {
    constexpr uint32_t kSeed = 2;
    auto undisturbed = make_vm(kSeed);
    undisturbed->a().faults().clear_log();
    EXPECT_TRUE(act(*undisturbed));
    const auto calls = undisturbed->a().faults().log();
    EXPECT_GT(calls.size(), 10U);
    for (size_t k = 1; k <= calls.size(); ++k) {
        auto vm = make_vm(kSeed);
        const std::string which = "call " + std::to_string(k) + ", " + calls[k - 1].name;
        vm->a().faults().fail({.pattern = "*", .nth = k, .errnum = EIO});
        const Leftovers before;
        const auto result = act(*vm);
        EXPECT_EQ(before.since(), "") << which;
        if (!result) {
            const std::string why = result.error().message();
            EXPECT_NE(why.find("device dev3: "), std::string::npos) << which << ": " << why;
            EXPECT_NE(why.find("Input/output error"), std::string::npos) << which << ": " << why;
        }
        judge(*vm, result, which);
    }
}

TEST_F(DeviceSnapshot, LoadsIntoARunningVm) {
    file_.offset = 4096;
    auto saved = make_vm(1);
    ASSERT_TRUE(save(*saved));
    expect_state(*saved, RunState::Running);

    auto loaded = make_vm(2);
    for (const auto& device : loaded->devices) device->faults().hold("set state resuming");
    auto channel = migration::open_incoming_channel(file_);
    ASSERT_TRUE(channel);
    std::optional<Result<>> over;
    loaded->vm.loop.run([&] {
        EXPECT_TRUE(loaded->vm.migration->load_snapshot(
            std::move(*channel), [&](Result<> result) { over = std::move(result); }));
    });
    ASSERT_TRUE(loaded->wait_until_held(loaded->devices.size()));
    expect_state(*loaded, RunState::RestoreVm);
    for (const auto& device : loaded->devices) device->faults().release();
    ASSERT_TRUE(loaded->vm.loop.wait_for([&] { return over.has_value(); }));
    EXPECT_TRUE(*over) << over->error().message();
    expect_state(*loaded, RunState::Running);
    expect_same(*saved, *loaded);
}

TEST_F(DeviceSnapshot, TakesTheSameVmBack) {
    auto vm = make_vm(1);
    const uint64_t digest = vm->a().digest();
    ASSERT_TRUE(save(*vm));
    vm->a().change_state(5000);
    ASSERT_NE(vm->a().digest(), digest);
    ASSERT_TRUE(load(*vm));
    EXPECT_EQ(vm->a().digest(), digest);
    expect_state(*vm, RunState::Running);
}

TEST_F(DeviceSnapshot, OfAPausedVmIsPaused) {
    auto saved = make_vm(1, RunState::Paused);
    ASSERT_TRUE(save(*saved));
    expect_state(*saved, RunState::Paused);
    auto loaded = make_vm(2);
    ASSERT_TRUE(load(*loaded));
    expect_state(*loaded, RunState::Paused);
    expect_same(*saved, *loaded);
    // and it runs when it is told to
    ASSERT_TRUE(loaded->vm.cont());
    expect_state(*loaded, RunState::Running);
}

TEST_F(DeviceSnapshot, GoesWithoutPreCopy) {
    auto saved = make_vm(1);
    saved->a().faults().clear_log();
    ASSERT_TRUE(save(*saved));
    EXPECT_EQ(saved->a().faults().count("set state pre-copy*"), 0U);
    EXPECT_EQ(saved->a().faults().count("set state stop-copy"), 1U);
}

TEST_F(DeviceSnapshot, SaveToAFullDiskLetsTheVmGoOn) {
    file_.path = "/dev/full";
    for (const RunState state : {RunState::Running, RunState::Paused}) {
        auto vm = make_vm(1, state);
        const Leftovers before;
        const auto saved = save(*vm);
        ASSERT_FALSE(saved);
        EXPECT_NE(saved.error().message().find("/dev/full"), std::string::npos);
        EXPECT_EQ(saved.error().message(), vm->vm.error_desc());
        expect_state(*vm, state);
        EXPECT_EQ(before.since(), "");
    }
}

TEST_F(DeviceSnapshot, SaveThatADeviceFailsLetsTheVmGoOn) {
    size_t failures = 0;
    sweep([this](SoftSide& vm) { return save(vm); },
          [&](SoftSide& vm, const Result<>& saved, const std::string& which) {
              const bool stays_stopped =
                  !saved && saved.error().message().find("resuming the VM") != std::string::npos;
              if (stays_stopped) {
                  // All but that was done, and it may be tried again.
                  expect_state(vm, RunState::Paused, which);
                  EXPECT_TRUE(vm.vm.cont()) << which;
              }
              expect_state(vm, RunState::Running, which);
              if (saved) return;
              ++failures;
              EXPECT_EQ(vm.vm.error_desc(), saved.error().message()) << which;
              const auto again = save(vm);
              EXPECT_TRUE(again) << which << ": " << again.error().message();
          });
    EXPECT_GT(failures, 10U);
}

TEST_F(DeviceSnapshot, LoadThatADeviceFailsEndsPausedAndCanBeRepeated) {
    auto saved = make_vm(1);
    ASSERT_TRUE(save(*saved));
    size_t failures = 0;
    sweep([this](SoftSide& vm) { return load(vm); },
          [&](SoftSide& vm, const Result<>& loaded, const std::string& which) {
              ASSERT_FALSE(loaded) << which;
              ++failures;
              const std::string why = loaded.error().message();
              // A VM that could not even be stopped has not been touched.
              const bool touched = why.find("stopping the VM") == std::string::npos;
              expect_state(vm, touched ? RunState::Paused : RunState::Running, which);
              if (touched) {
                  EXPECT_EQ(vm.vm.error_desc(), why) << which;
              }
              const auto again = load(vm);
              ASSERT_TRUE(again) << which << ": " << again.error().message();
              expect_state(vm, RunState::Running, which);
              expect_same(*saved, vm, which);
          });
    EXPECT_GT(failures, 10U);
}

TEST_F(DeviceSnapshot, LoadOfHalfAFileEndsPausedAndCanBeRepeated) {
    auto saved = make_vm(1);
    ASSERT_TRUE(save(*saved));
    const std::filesystem::path whole = directory_ / "whole";
    std::filesystem::copy_file(file_.path, whole);
    std::filesystem::resize_file(file_.path, std::filesystem::file_size(whole) / 2);

    auto vm = make_vm(2);
    const Leftovers before;
    const auto loaded = load(*vm);
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("the stream ended"), std::string::npos)
        << loaded.error().message();
    EXPECT_EQ(loaded.error().message(), vm->vm.error_desc());
    expect_state(*vm, RunState::Paused);
    EXPECT_EQ(before.since(), "");

    file_.path = whole;
    ASSERT_TRUE(load(*vm));
    expect_state(*vm, RunState::Running);
    expect_same(*saved, *vm);
}

TEST_F(DeviceSnapshot, LoadOfGarbageEndsPaused) {
    std::ofstream(file_.path) << "this is no VM";
    auto vm = make_vm(2);
    const auto loaded = load(*vm);
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().message(), vm->vm.error_desc());
    expect_state(*vm, RunState::Paused);
}

}  // namespace
}  // namespace ferry::test
