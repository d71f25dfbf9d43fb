// SPDX-License-Identifier: BSD-2-Clause
// Stopping and starting with the VM: which state the device goes to in which pass.
#include <optional>
#include <utility>

#include "hw/vfio/migration.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

using system::Direction;
using system::Pass;
using system::RunState;
using system::VmChange;

namespace {

std::string_view to_string(Direction direction) {
    return direction == Direction::Stop ? "stop" : "start";
}

// Quiescent towards peers. A device that is so already, or whose half of an undone change never
// happened, stays where it is.
MigState prepare_target(Direction direction, MigState state) {
    switch (state) {
        case MigState::Running: return direction == Direction::Stop ? MigState::RunningP2P : state;
        case MigState::PreCopy: return direction == Direction::Stop ? MigState::PreCopyP2P : state;
        case MigState::Stop:
        case MigState::StopCopy:
            return direction == Direction::Start ? MigState::RunningP2P : state;
        case MigState::Error:
        case MigState::Resuming:
        case MigState::RunningP2P:
        case MigState::PreCopyP2P: return state;
    }
    return state;
}

// A pause keeps the saving session, so that what was sent so far keeps its worth.
bool keeps_session(RunState state) {
    return state == RunState::FinishMigrate || state == RunState::Paused;
}

MigState stop_target(RunState reason, MigState state) {
    switch (state) {
        case MigState::PreCopy:
        case MigState::PreCopyP2P:
            return keeps_session(reason) ? MigState::StopCopy : MigState::Stop;
        case MigState::Running:
        case MigState::RunningP2P: return MigState::Stop;
        case MigState::Error:
        case MigState::Stop:
        case MigState::StopCopy:
        case MigState::Resuming: return state;
    }
    return state;
}

// Pre-copy runs; a device in it has been through a stop that was undone.
MigState start_target(MigState state) {
    switch (state) {
        case MigState::PreCopy:
        case MigState::PreCopyP2P: return MigState::PreCopy;
        case MigState::Running:
        case MigState::RunningP2P:
        case MigState::Stop:
        case MigState::StopCopy: return MigState::Running;
        case MigState::Error:
        case MigState::Resuming: return state;
    }
    return state;
}

}  // namespace

void VfioMigration::vm_change(Pass pass, VmChange change_wanted, system::Done done) {
    worker_.post([this, pass, change_wanted, done = std::move(done)]() mutable {
        done(pass == Pass::Prepare ? prepare(change_wanted) : change(change_wanted));
    });
}

Result<> VfioMigration::prepare(VmChange wanted) {
    const MigState state = state_.state();
    trace::vfio_vmstate_change_prepare(env_.trace, label_, to_string(wanted.direction),
                                       system::to_string(wanted.state), vfio::to_string(state));
    between_passes_ = true;
    return go(prepare_target(wanted.direction, state), wanted,
              wanted.direction == Direction::Stop ? "quiesce" : "prepare-start");
}

Result<> VfioMigration::change(VmChange wanted) {
    const MigState state = state_.state();
    trace::vfio_vmstate_change(env_.trace, label_, to_string(wanted.direction),
                               system::to_string(wanted.state), vfio::to_string(state));
    between_passes_ = false;
    if (wanted.direction == Direction::Stop) {
        state_.set_vm(VmActivity::Stopped);
        return go(stop_target(wanted.state, state), wanted, "stop");
    }
    state_.set_vm(VmActivity::Running);
    if (state == MigState::Resuming) {
        return make_error(ErrorKind::InvalidState,
                          "device {} is still being loaded: it can't run before its driver has "
                          "accepted all of its state",
                          label_);
    }
    return go(start_target(state), wanted, "start");
}

Result<> VfioMigration::go(MigState target, VmChange wanted, std::string_view step) {
    // A broken device was reported when it broke; the VM lives on without it.
    if (state_.broken() || target == state_.state()) return {};
    const util::ScopedSpan span(env_.timeline, label_, step);
    const std::string why =
        wanted.direction == Direction::Stop
            ? fmt::format("the VM was stopped ({})", system::to_string(wanted.state))
            : std::string("the VM was continued");
    return state_.set_state(target, why);
}

void VfioMigration::device_was_reset() {
    worker_.post([this] { state_.was_reset_by_others(); });
}

}  // namespace ferry::vfio
