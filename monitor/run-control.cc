// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/run-control.h"

#include <utility>

#include "util/try.h"

namespace ferry::monitor {

using migration::MigrationStatus;
using system::RunState;

void RunControl::reset(system::Done done) {
    vm_.runstate().exclusively([this](system::Done over) { reset_now(std::move(over)); },
                               std::move(done));
}

void RunControl::reset_now(system::Done done) {
    const RunState state = vm_.runstate().state();
    if (state == RunState::FinishMigrate) {
        return done(make_error(ErrorKind::InvalidState, "Migration is not finalized yet"));
    }
    if (state == RunState::InMigrate && vm_.migration().query().status == MigrationStatus::Active) {
        return done(
            make_error(ErrorKind::InvalidState, "Guest is waiting for an incoming migration"));
    }
    vm_.reset([this, done = std::move(done)](Result<> result) mutable {
        if (result) result = fresh();
        done(std::move(result));
    });
}

// A stopped VM that was reset is one that has not begun yet.
Result<> RunControl::fresh() {
    const RunState state = vm_.runstate().state();
    const bool stays =
        system::is_live(state) || state == RunState::InMigrate || state == RunState::FinishMigrate;
    return stays ? Result<>() : vm_.runstate().set_state(RunState::PreLaunch);
}

}  // namespace ferry::monitor
