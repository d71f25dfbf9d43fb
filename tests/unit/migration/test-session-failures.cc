// SPDX-License-Identifier: BSD-2-Clause
// Every call to a software device failing in turn, on either side, with a VM that runs and with one
// that is paused.
#include "tests/unit/migration/failure-sweep.h"

namespace ferry::test {
namespace {

using migration::Role;
using system::RunState;
using enum CallRule::Failure;

using Rules = std::vector<CallRule>;

// What any source asks its device.
const Rules kAlways = {
    {"start dma log", EndsAttempt, "starting the log of its writes to guest memory"},
    {"report dma log", IsHarmless,
     "can't tell what was written to guest memory"},  // all goes again
    {"get data size", IsHarmless, ""},                // a guess replaces it
    {"read state", EndsAttempt, "reading its state in "},
    // Afterwards: the VM has gone.
    {"stop dma log", IsHarmless, "stopping the log of its writes to guest memory"},
    {"set state stop", IsHarmless, "changing from stop-copy to stop"},  // the second try succeeds
    {"arc:stop-copy->stop", IsHarmless, "changing from stop-copy to stop"},
};
const Rules kFromPreCopy = {
    {"set state pre-copy", EndsAttempt, "changing from running to pre-copy"},
    {"arc:running->pre-copy", EndsAttempt, "changing from running to pre-copy"},
    {"get precopy info", IsHarmless, ""},  // nothing is left for pre-copy then
    {"set state pre-copy-p2p", EndsAttempt, "changing from pre-copy to pre-copy-p2p"},
    {"arc:pre-copy->pre-copy-p2p", EndsAttempt, "changing from pre-copy to pre-copy-p2p"},
    {"set state stop-copy", EndsAttempt, "changing from pre-copy-p2p to stop-copy"},
    {"arc:pre-copy-p2p->stop-copy", EndsAttempt, "changing from pre-copy-p2p to stop-copy"},
};
const Rules kFromStop = {
    {"set state stop-copy", EndsAttempt, "changing from stop to stop-copy"},
    {"arc:stop->stop-copy", EndsAttempt, "changing from stop to stop-copy"},
};
const Rules kLoad = {
    {"set state resuming", EndsAttempt, "changing from running to resuming"},
    {"arc:running->running-p2p", EndsAttempt, "changing from running to resuming"},
    {"arc:running-p2p->stop", EndsAttempt, "changing from running to resuming"},
    {"arc:stop->resuming", EndsAttempt, "changing from running to resuming"},
    {"write state", EndsAttempt, "writing its state, after "},
    {"set state stop", EndsAttempt, "its driver does not accept the received state"},
    {"arc:resuming->stop", EndsAttempt, "its driver does not accept the received state"},
};
const Rules kStart = {
    {"set state running-p2p", StopsBoth, "changing from stop to running-p2p"},
    {"arc:stop->running-p2p", StopsBoth, "changing from stop to running-p2p"},
    {"set state running", StopsBoth, "changing from running-p2p to running"},
    {"arc:running-p2p->running", StopsBoth, "changing from running-p2p to running"},
};

Rules both(Rules some, const Rules& others) {
    some.insert(some.end(), others.begin(), others.end());
    return some;
}

class DeviceFailures : public testing::Test {
 protected:
    void sweep(Role disturbed, RunState was, Rules rules, size_t page_channels = 0) {
        FailureSweep({.make_side =
                          [this, page_channels](RunState initial) {
                              auto side = std::make_unique<SoftSide>(
                                  clock_, initial, std::vector(2, small_device()));
                              if (page_channels != 0) use_page_channels(*side, page_channels);
                              if (initial == RunState::PreLaunch) side->a().change_state(100'000);
                              return side;
                          },
                      .disturbed = disturbed,
                      .was = was,
                      .rules = std::move(rules)})
            .run();
    }

 private:
    util::SystemClock clock_;
};

TEST_F(DeviceFailures, AtTheSourceLeaveTheVmRunning) {
    sweep(Role::Source, RunState::Running, both(kFromPreCopy, kAlways));
}

TEST_F(DeviceFailures, AtTheSourceLeaveAPausedVmPaused) {
    sweep(Role::Source, RunState::Paused, both(kFromStop, kAlways));
}

TEST_F(DeviceFailures, AtTheDestinationLeaveTheVmRunningUntilItIsHandedOver) {
    sweep(Role::Destination, RunState::Running, both(kStart, kLoad));
}

TEST_F(DeviceFailures, AtTheDestinationLeaveAPausedVmPaused) {
    sweep(Role::Destination, RunState::Paused, kLoad);
}

// The same with the devices' state on page channels, by other threads.

TEST_F(DeviceFailures, AtTheSourceWithPageChannelsLeaveTheVmRunning) {
    sweep(Role::Source, RunState::Running, both(kFromPreCopy, kAlways), 2);
}

TEST_F(DeviceFailures, AtTheSourceWithPageChannelsLeaveAPausedVmPaused) {
    sweep(Role::Source, RunState::Paused, both(kFromStop, kAlways), 1);
}

TEST_F(DeviceFailures, AtTheDestinationWithPageChannelsLeaveTheVmRunningUntilItIsHandedOver) {
    sweep(Role::Destination, RunState::Running, both(kStart, kLoad), 2);
}

TEST_F(DeviceFailures, AtTheDestinationWithPageChannelsLeaveAPausedVmPaused) {
    sweep(Role::Destination, RunState::Paused, kLoad, 3);
}

}  // namespace
}  // namespace ferry::test
