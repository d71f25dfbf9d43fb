// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <future>

#include "hw/vfio/container-legacy.h"
#include "hw/vfio/pci.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/test-vm.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

using test::FakeVfioKernel;

class VfioPci : public testing::Test {
 protected:
    ~VfioPci() override {
        vm_.loop.run([this] { device_.reset(); });
        EXPECT_EQ(kernel_.open_fds(), 0u);
        EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
        EXPECT_TRUE(bus_.devices().empty());
        EXPECT_TRUE(vm_.registry.entries().size() == sections_);
    }
    VfioPciDevice::Request request(pci::PciAddress address = {3, 0}) {
        return {.vm = {.loop = vm_.loop,
                       .env = vm_.env,
                       .runstate = vm_.runstate,
                       .memory = vm_.memory,
                       .blockers = vm_.migration->blockers(),
                       .registry = vm_.registry,
                       .services = vm_.services,
                       .migration_event = nullptr},
                .bus = bus_,
                .address = address,
                .identity = {.id = "vf0",
                             .path = address.path(),
                             .qom_path = "/machine/peripheral/vf0"},
                .properties = {.enable_migration = OnOffAuto::On},
                .sink = {.message = [](uint64_t, uint32_t) {}, .pin = nullptr},
                .open = [this] { return host_.open_device("3b:00.2"); }};
    }
    Result<> realize(pci::PciAddress address = {3, 0}) {
        return vm_.on_loop([&]() -> Result<> {
            auto device = VfioPciDevice::realize(request(address));
            if (!device) return std::move(device).error();
            device_ = std::move(*device);
            return {};
        });
    }
    // On the device's own thread, then on the loop's; `admit` decides.
    Result<> realize_async(VfioPciDevice::Admit admit) {
        std::promise<Result<>> outcome;
        vm_.loop.run([&] {
            VfioPciDevice::realize_async(request(), std::move(admit), [&](auto realized) {
                EXPECT_TRUE(vm_.loop.on_loop_thread());
                if (realized) device_ = std::move(*realized);
                outcome.set_value(realized ? Result<>() : std::move(realized).error());
            });
        });
        return outcome.get_future().get();
    }
    static void admit_at_once(VfioPciDevice::Join join) { join({}); }

    util::SystemClock clock_;
    test::TestVm vm_{clock_, system::RunState::PreLaunch};
    const size_t sections_ = vm_.registry.entries().size();
    FakeVfioKernel kernel_;
    test::FakeVfioDevice& fake_{kernel_.add_pci_device("0000:3b:00.2", 7)};
    system::GuestMemory no_memory_;
    VfioKernelHost host_{kernel_, no_memory_};
    pci::PciBus bus_;
    std::unique_ptr<VfioPciDevice> device_;
};

TEST_F(VfioPci, EveryFailingCallOfTheRealizationLeavesNothing) {
    for (unsigned call = 1;; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        const auto realized = realize();
        if (realized) {
            kernel_.fail_call(0, 0);
            EXPECT_GT(call, 20u);
            break;
        }
        EXPECT_EQ(kernel_.open_fds(), 0u) << "call " << call;
        EXPECT_TRUE(bus_.devices().empty()) << "call " << call;
        EXPECT_EQ(vm_.registry.entries().size(), sections_) << "call " << call;
    }
}

TEST_F(VfioPci, EveryFailingCallOfTheAsynchronousRealizationLeavesNothing) {
    for (unsigned call = 1;; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        const auto realized = realize_async(admit_at_once);
        if (realized) {
            kernel_.fail_call(0, 0);
            EXPECT_GT(call, 20u);
            break;
        }
        EXPECT_EQ(kernel_.open_fds(), 0u) << "call " << call;
        EXPECT_TRUE(bus_.devices().empty()) << "call " << call;
        EXPECT_EQ(vm_.registry.entries().size(), sections_) << "call " << call;
    }
    EXPECT_EQ(bus_.config_read({3, 0}, 0, 4), 0x0101f3e4u);
}

TEST_F(VfioPci, DeviceThatIsNotAdmittedIsClosedAndNeverSeen) {
    const auto realized = realize_async([this](VfioPciDevice::Join join) {
        EXPECT_TRUE(vm_.loop.on_loop_thread());
        EXPECT_GT(kernel_.open_fds(), 0u);
        EXPECT_TRUE(bus_.devices().empty());
        join(make_error(ErrorKind::InvalidState, "not now"));
    });
    ASSERT_FALSE(realized);
    EXPECT_EQ(realized.error().message(), "not now");
    EXPECT_EQ(kernel_.open_fds(), 0u);
    EXPECT_EQ(vm_.registry.entries().size(), sections_);
}

TEST_F(VfioPci, LoopGoesOnWhileTheDeviceIsBeingOpened) {
    std::promise<void> inside, gate;
    std::promise<bool> outcome;
    vm_.loop.run([&] {
        VfioPciDevice::Request held = request();
        held.open = [&] {
            inside.set_value();
            gate.get_future().wait();
            return host_.open_device("3b:00.2");
        };
        VfioPciDevice::realize_async(std::move(held), admit_at_once, [&](auto realized) {
            if (realized) device_ = std::move(*realized);
            outcome.set_value(realized.has_value());
        });
    });
    inside.get_future().wait();
    vm_.loop.run([&] {
        const auto calls = vm_.env.activity.snapshot();
        ASSERT_EQ(calls.size(), 1u);
        EXPECT_EQ(calls[0].who, "vf0");
        EXPECT_EQ(calls[0].call, "open");
    });
    gate.set_value();
    EXPECT_TRUE(outcome.get_future().get());
}

TEST_F(VfioPci, DeviceThatIsAdmittedLaterWaits) {
    std::promise<VfioPciDevice::Join> asked;
    vm_.loop.run([&] {
        VfioPciDevice::realize_async(
            request(), [&](VfioPciDevice::Join join) { asked.set_value(std::move(join)); },
            [&](auto realized) {
                EXPECT_TRUE(realized);
                device_ = std::move(*realized);
            });
    });
    auto join = asked.get_future().get();
    EXPECT_TRUE(bus_.devices().empty());
    vm_.loop.run([&] { join({}); });
    EXPECT_EQ(bus_.devices().size(), 1u);
    EXPECT_NE(device_, nullptr);
}

TEST_F(VfioPci, TakenAddressFailsAndLeavesNothing) {
    const auto other = host_.open_device("3b:00.2");
    ASSERT_TRUE(realize());
    const size_t fds = kernel_.open_fds();
    auto first = std::move(device_);
    EXPECT_FALSE(realize());
    EXPECT_EQ(kernel_.open_fds(), fds);
    vm_.loop.run([&] { first.reset(); });
}

TEST_F(VfioPci, DeviceIsOnTheBusAndMigrates) {
    ASSERT_TRUE(realize());
    EXPECT_EQ(bus_.config_read({3, 0}, 0, 4), 0x0101f3e4u);
    EXPECT_NE(vm_.registry.find("0000:00:03.0/vfio", 0), nullptr);
}

TEST_F(VfioPci, MachineResetRunsOnTheDevicesThread) {
    ASSERT_TRUE(realize());
    bus_.config_write({3, 0}, 4, 2, 6);
    std::promise<Result<>> reset;
    vm_.loop.run(
        [&] { device_->reset([&reset](Result<> result) { reset.set_value(std::move(result)); }); });
    EXPECT_TRUE(reset.get_future().get());
    EXPECT_EQ(fake_.resets, 1u);
    EXPECT_EQ(bus_.config_read({3, 0}, 4, 2), 0u);
}

TEST_F(VfioPci, FailedResetNamesTheDevice) {
    ASSERT_TRUE(realize());
    kernel_.fail_call(kernel_.calls() + 1, EAGAIN);
    std::promise<Result<>> reset;
    vm_.loop.run(
        [&] { device_->reset([&reset](Result<> result) { reset.set_value(std::move(result)); }); });
    const auto result = reset.get_future().get();
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message().find("device vf0"), std::string::npos);
}

TEST_F(VfioPci, UnrealizesWithoutTheLoopWaiting) {
    ASSERT_TRUE(realize());
    std::promise<void> gone;
    vm_.loop.run([&] {
        VfioPciDevice::unrealize(std::move(device_), [&](const Result<>& result) {
            EXPECT_TRUE(result);
            EXPECT_TRUE(vm_.loop.on_loop_thread());
            gone.set_value();
        });
    });
    gone.get_future().wait();
    EXPECT_EQ(kernel_.open_fds(), 0u);
    EXPECT_EQ(bus_.config_read({3, 0}, 0, 4), 0xffffffffu);
    EXPECT_EQ(vm_.registry.entries().size(), sections_);
}

TEST_F(VfioPci, ResetThatWasQueuedBeforeTheUnrealizeIsDone) {
    ASSERT_TRUE(realize());
    std::promise<void> gone;
    std::atomic<int> reset = 0;
    vm_.loop.run([&] {
        device_->reset([&reset](const Result<>& result) { reset = result ? 1 : 2; });
        VfioPciDevice::unrealize(std::move(device_), [&](const Result<>&) { gone.set_value(); });
    });
    gone.get_future().wait();
    EXPECT_EQ(reset, 1);
    EXPECT_EQ(fake_.resets, 1u);
}

}  // namespace
}  // namespace ferry::vfio
