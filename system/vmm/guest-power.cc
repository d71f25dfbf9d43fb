// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/guest-power.h"

#include <fmt/format.h>

#include "util/try.h"

namespace ferry::vmm {

using monitor::ShutdownCause;
using system::RunState;

GuestPower::GuestPower(system::MainLoop& loop, util::Env& env, system::RunStateController& runstate,
                       Policy policy, Actions actions)
    : env_(env),
      runstate_(runstate),
      policy_(policy),
      actions_(std::move(actions)),
      requests_(loop, [this] { serve(); }) {}

// For what nobody waits for.
system::Done GuestPower::warn(std::string_view what) {
    return [this, what](Result<> result) {
        if (result) return;
        env_.log.log(util::LogLevel::Warning,
                     fmt::format("{} failed: {}", what, result.error().message()));
    };
}

// A VM that is stopped by now keeps the request until it runs again, here or elsewhere.
void GuestPower::serve() {
    runstate_.exclusively(
        [this](system::Done over) {
            if (!system::is_live(runstate_.state())) return over({});
            carry_out(requests_.take(), std::move(over));
        },
        warn("what the guest asked for"));
}

void GuestPower::carry_out(GuestRequest what, system::Done over) {
    switch (what) {
        case GuestRequest::None: return over({});
        case GuestRequest::Reset: return reset(std::move(over));
        case GuestRequest::PowerOff: shut_down(ShutdownCause::GuestShutdown); return over({});
        case GuestRequest::Suspend: return suspend(std::move(over));
    }
}

void GuestPower::reset(system::Done over) {
    if (policy_.on_reset == OnReset::ShutDown) {
        shut_down(ShutdownCause::GuestReset);
        return over({});
    }
    actions_.reset(KvmMachine::Memory::Reloaded,
                   [this, over = std::move(over)](Result<> result) mutable {
                       if (result) events_->reset(ShutdownCause::GuestReset);
                       over(std::move(result));
                   });
}

void GuestPower::shut_down(ShutdownCause cause) {
    events_->shutdown(cause);
    if (policy_.on_power_off == OnPowerOff::End) {
        actions_.end_process();
    } else {
        runstate_.stop(RunState::Shutdown, warn("stopping a guest that was shut down"));
    }
}

// Devices go on: what a suspended guest has left running stops with a migration only.
void GuestPower::suspend(system::Done over) {
    actions_.pause_cpus([this, over = std::move(over)](Result<> paused) mutable {
        if (paused) paused = runstate_.set_state(RunState::Suspended);
        if (paused) events_->suspend();
        over(std::move(paused));
    });
}

Result<> GuestPower::wake() {
    if (runstate_.state() != RunState::Suspended) {
        return make_error(ErrorKind::InvalidState,
                          "Unable to wake up: guest is not in suspended state");
    }
    runstate_.exclusively([this](system::Done over) { wake_now(std::move(over)); },
                          warn("waking the guest up"));
    return {};
}

void GuestPower::wake_now(system::Done over) {
    if (runstate_.state() != RunState::Suspended) return over({});
    if (auto running = runstate_.set_state(RunState::Running); !running) {
        return over(std::move(running));
    }
    actions_.reset(KvmMachine::Memory::Kept,
                   [this, over = std::move(over)](Result<> result) mutable {
                       if (result) events_->wakeup();
                       over(std::move(result));
                   });
}

void GuestPower::guest_ended(const kvm::GuestEnd& end) {
    using Kind = kvm::GuestEnd::Kind;
    switch (end.kind) {
        case Kind::TripleFault:
        case Kind::Reset: return requests_.request(GuestRequest::Reset);
        case Kind::PowerOff: return requests_.request(GuestRequest::PowerOff);
        case Kind::Crash:
        case Kind::InternalError: break;
    }
    env_.log.log(util::LogLevel::Error,
                 fmt::format("CPU {}: {}: {}", end.vcpu, to_string(end.kind), end.text));
    runstate_.stop(RunState::InternalError, warn("stopping a guest that can't go on"));
}

}  // namespace ferry::vmm
