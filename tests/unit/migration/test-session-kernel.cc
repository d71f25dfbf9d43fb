// SPDX-License-Identifier: BSD-2-Clause
// Every system call for a PCI device of the (fake) kernel failing in turn, on either side, with a
// VM that runs and with one that is paused.
#include "tests/support/test-vm-kernel-device.h"
#include "tests/unit/migration/failure-sweep.h"

namespace ferry::test {
namespace {

using migration::Role;
using system::RunState;
using enum CallRule::Failure;

using Rules = std::vector<CallRule>;

std::string feature(const std::string& what) {
    return "ioctl(VFIO_DEVICE_FEATURE, " + what + ")";
}
// Asked before each change of the state, so that a device in ERROR is never told to change.
const std::string kGetState = feature("GET MIG_DEVICE_STATE");
std::string set_state(const std::string& state) {
    return feature("SET MIG_DEVICE_STATE " + state);
}

// What any source asks of the kernel.
const Rules kAlways = {
    {feature("SET DMA_LOGGING_START 1 ranges"), EndsAttempt,
     "starting the log of its writes to guest memory"},
    {feature("GET DMA_LOGGING_REPORT *"), IsHarmless,
     "can't tell what was written to guest memory"},  // all goes again
    {feature("GET MIG_DATA_SIZE"), IsHarmless, ""},   // a guess replaces it
    {"read(migration data)", EndsAttempt, "reading its state in "},
    // Afterwards: the VM has gone. A second try puts the device into its state.
    {feature("SET DMA_LOGGING_STOP"), IsHarmless, "stopping the log of its writes"},
    {set_state("stop"), IsHarmless, "changing from stop-copy to stop"},
};
const Rules kFromPreCopy = {
    {kGetState, EndsAttempt, "changing from running to pre-copy", 1},
    {set_state("pre-copy"), EndsAttempt, "changing from running to pre-copy"},
    {"ioctl(VFIO_MIG_GET_PRECOPY_INFO)", IsHarmless, ""},  // nothing is left for pre-copy then
    {kGetState, EndsAttempt, "changing from pre-copy to pre-copy-p2p", 2},
    {set_state("pre-copy-p2p"), EndsAttempt, "changing from pre-copy to pre-copy-p2p"},
    {kGetState, EndsAttempt, "changing from pre-copy-p2p to stop-copy", 3},
    {set_state("stop-copy"), EndsAttempt, "changing from pre-copy-p2p to stop-copy"},
    {kGetState, IsHarmless, "changing from stop-copy to stop", 4},
};
const Rules kFromStop = {
    {kGetState, EndsAttempt, "changing from stop to stop-copy", 1},
    {set_state("stop-copy"), EndsAttempt, "changing from stop to stop-copy"},
    {kGetState, IsHarmless, "changing from stop-copy to stop", 2},
};
const Rules kLoad = {
    {kGetState, EndsAttempt, "changing from running to resuming", 1},
    {set_state("resuming"), EndsAttempt, "changing from running to resuming"},
    {"write(migration data)", EndsAttempt, "writing its state, after "},
    {"pwrite(region 7, 0x4+2)", EndsAttempt, "loading its configuration: "},
    {"ioctl(VFIO_DEVICE_SET_IRQS, MSI-X eventfds 0+4)", EndsAttempt,
     "loading its configuration: *setting up its interrupts"},
    {kGetState, EndsAttempt, "its driver does not accept the received state", 2},
    {set_state("stop"), EndsAttempt, "its driver does not accept the received state"},
};
const Rules kStart = {
    {kGetState, StopsBoth, "changing from stop to running-p2p", 3},
    {set_state("running-p2p"), StopsBoth, "changing from stop to running-p2p"},
    {kGetState, StopsBoth, "changing from running-p2p to running", 4},
    {set_state("running"), StopsBoth, "changing from running-p2p to running"},
};

Rules both(Rules some, const Rules& others) {
    some.insert(some.end(), others.begin(), others.end());
    return some;
}

class KernelFailures : public testing::Test {
 protected:
    // A kernel device, whose driver in the guest uses it, beside a software device.
    std::unique_ptr<Side> make_side(RunState initial) {
        auto side = std::make_unique<Side>(clock_, initial);
        auto device = std::make_unique<TestVmKernelDevice>(side->vm, 3);
        if (initial == RunState::PreLaunch) {
            device->set_image(std::vector(30'000, std::byte{0x5a}),
                              std::vector(20'000, std::byte{0xa5}));
            device->enable_interrupts();
        }
        side->devices.push_back(std::move(device));
        side->devices.push_back(std::make_unique<TestVmDevice>(side->vm, 4, small_device()));
        return side;
    }
    void sweep(Role disturbed, RunState was, Rules rules) {
        FailureSweep({.make_side = [this](RunState initial) { return make_side(initial); },
                      .disturbed = disturbed,
                      .was = was,
                      .rules = std::move(rules)})
            .run();
    }

 private:
    util::SystemClock clock_;
};

TEST_F(KernelFailures, AtTheSourceLeaveTheVmRunning) {
    sweep(Role::Source, RunState::Running, both(kFromPreCopy, kAlways));
}

TEST_F(KernelFailures, AtTheSourceLeaveAPausedVmPaused) {
    sweep(Role::Source, RunState::Paused, both(kFromStop, kAlways));
}

TEST_F(KernelFailures, AtTheDestinationLeaveTheVmRunningUntilItIsHandedOver) {
    sweep(Role::Destination, RunState::Running, both(kStart, kLoad));
}

TEST_F(KernelFailures, AtTheDestinationLeaveAPausedVmPaused) {
    sweep(Role::Destination, RunState::Paused, kLoad);
}

}  // namespace
}  // namespace ferry::test
