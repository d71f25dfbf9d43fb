// SPDX-License-Identifier: BSD-2-Clause
// What becomes of the VM when its guest resets, powers off, suspends or crashes, and when somebody
// wakes it up. See docs/devel/ferry-vmm.rst.
#pragma once

#include <functional>

#include "accel/kvm/vcpu.h"
#include "monitor/events.h"
#include "system/runstate.h"
#include "system/vmm/guest-requests.h"
#include "system/vmm/kvm-machine.h"
#include "system/vmm/options.h"
#include "util/env.h"

namespace ferry::vmm {

// Main loop thread.
class GuestPower {
 public:
    struct Actions {
        // Resets everything, while no stop or start is under way, and lets a running guest go on.
        std::function<void(KvmMachine::Memory memory, system::Done done)> reset;
        std::function<void(system::Done done)> pause_cpus;
        std::function<void()> end_process;  // with status 0
    };
    struct Policy {
        OnPowerOff on_power_off = OnPowerOff::End;
        OnReset on_reset = OnReset::Reset;
    };
    GuestPower(system::MainLoop& loop, util::Env& env, system::RunStateController& runstate,
               Policy policy, Actions actions);

    GuestRequests& requests() { return requests_; }
    // The monitor exists from now on: before the VM runs.
    void set_events(monitor::Events& events) { events_ = &events; }
    void guest_ended(const kvm::GuestEnd& end);
    // Ends the VM's life, or stops it for good, as the policy says.
    void shut_down(monitor::ShutdownCause cause);
    // Out of suspend-to-RAM; what became of it is told by an event.
    Result<> wake();

 private:
    void serve();
    void carry_out(GuestRequest what, system::Done over);
    void reset(system::Done over);
    void suspend(system::Done over);
    void wake_now(system::Done over);
    system::Done warn(std::string_view what);

    util::Env& env_;
    system::RunStateController& runstate_;
    const Policy policy_;
    const Actions actions_;
    monitor::Events* events_ = nullptr;
    GuestRequests requests_;
};

}  // namespace ferry::vmm
