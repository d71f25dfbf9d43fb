// SPDX-License-Identifier: BSD-2-Clause
#include "migration/status.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

struct StatusName {
    MigrationStatus status;
    std::string_view name;
};
using enum MigrationStatus;
constexpr std::array kNames = {
    StatusName{None, "none"},
    StatusName{Setup, "setup"},
    StatusName{Cancelling, "cancelling"},
    StatusName{Cancelled, "cancelled"},
    StatusName{Active, "active"},
    StatusName{Completed, "completed"},
    StatusName{Failed, "failed"},
    StatusName{PreSwitchover, "pre-switchover"},
    StatusName{Device, "device"},
};
static_assert(std::ranges::is_sorted(kNames, {}, &StatusName::status));

struct Arc {
    MigrationStatus from;
    MigrationStatus to;
};
// docs/interop/qmp-reference.rst, "Status". The arcs back to setup are the next attempt.
constexpr std::array kSourceArcs = {
    Arc{None, Setup},
    Arc{Completed, Setup},
    Arc{Failed, Setup},
    Arc{Cancelled, Setup},
    Arc{Setup, Active},
    Arc{Active, Device},
    Arc{Active, PreSwitchover},
    Arc{PreSwitchover, Device},
    Arc{Device, Completed},
    Arc{Setup, Failed},
    Arc{Active, Failed},
    Arc{PreSwitchover, Failed},
    Arc{Device, Failed},
    Arc{Setup, Cancelling},
    Arc{Active, Cancelling},
    Arc{PreSwitchover, Cancelling},
    Arc{Device, Cancelling},
    Arc{Cancelling, Cancelled},
    // A cancel that came after the peer had said that the VM is its own.
    Arc{Cancelling, Completed},
    Arc{Cancelling, Failed},
};
constexpr std::array kDestinationArcs = {
    Arc{None, Setup},   Arc{Completed, Setup}, Arc{Failed, Setup},  Arc{Cancelled, Setup},
    Arc{Setup, Active}, Arc{Setup, Failed},    Arc{Active, Failed}, Arc{Active, Completed},
};

bool arc_exists(Role role, MigrationStatus from, MigrationStatus to) {
    const std::span<const Arc> arcs =
        role == Role::Source ? std::span<const Arc>(kSourceArcs) : kDestinationArcs;
    return std::ranges::any_of(arcs,
                               [&](const Arc& arc) { return arc.from == from && arc.to == to; });
}

std::string_view to_string(Role role) {
    return role == Role::Source ? "outgoing" : "incoming";
}

}  // namespace

std::string_view to_string(MigrationStatus status) {
    return kNames[static_cast<size_t>(status)].name;
}

Result<MigrationStatus> status_from_name(std::string_view name) {
    const auto found = std::ranges::find(kNames, name, &StatusName::name);
    if (found == kNames.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter 'state' does not accept value '{}'", name);
    }
    return found->status;
}

bool is_in_progress(MigrationStatus status) {
    switch (status) {
        case Setup:
        case Active:
        case PreSwitchover:
        case Device:
        case Cancelling: return true;
        case None:
        case Cancelled:
        case Completed:
        case Failed: return false;
    }
    return false;
}

StatusMachine::StatusMachine(Role role, util::Env& env, Listener changed)
    : role_(role), env_(env), changed_(std::move(changed)) {}

MigrationStatus StatusMachine::get() const {
    const std::lock_guard lock(mutex_);
    return status_;
}

Result<> StatusMachine::advance(MigrationStatus to) {
    std::unique_lock lock(mutex_);
    // The change before this one must have been told first.
    told_.wait(lock, [this] { return telling_ == Telling::Nobody; });
    const MigrationStatus from = status_;
    if (!arc_exists(role_, from, to)) {
        if (from == Cancelling || from == Cancelled) {
            return make_error(ErrorKind::Cancelled, "the migration was cancelled");
        }
        return make_error(ErrorKind::InvalidState,
                          "an {} migration in status '{}' can't become '{}'", to_string(role_),
                          to_string(from), to_string(to));
    }
    status_ = to;
    telling_ = Telling::Listener;
    lock.unlock();
    trace::migrate_set_state(env_.trace, to_string(role_), to_string(from), to_string(to));
    if (changed_) changed_(to);
    lock.lock();
    telling_ = Telling::Nobody;
    lock.unlock();
    told_.notify_all();
    return {};
}

}  // namespace ferry::migration
