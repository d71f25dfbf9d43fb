// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/run-control.h"

#include <utility>

#include "util/try.h"

namespace ferry::monitor {

using migration::MigrationStatus;
using system::RunState;

void RunControl::stop(system::Done done) {
    behind_reset([this, done = std::move(done)]() mutable {
        if (vm_.runstate().state() == RunState::InMigrate && !vm_.runstate().busy()) {
            vm_.migration().set_autostart(false);
            return done({});
        }
        vm_.runstate().user_stop(std::move(done));
    });
}

void RunControl::cont(system::Done done) {
    behind_reset([this, done = std::move(done)]() mutable {
        if (vm_.runstate().state() == RunState::InMigrate && !vm_.runstate().busy()) {
            vm_.migration().set_autostart(true);
            return done({});
        }
        vm_.runstate().user_cont(std::move(done));
    });
}

void RunControl::reset(system::Done done) {
    behind_reset([this, done = std::move(done)]() mutable {
        reset_ = Reset::Pending;
        reset_when_idle(std::move(done));
    });
}

// The run-state controller has a queue for stops and starts, not for resets: what arrives while one
// waits or works stays in order here.
void RunControl::behind_reset(Task task) {
    if (reset_ == Reset::Pending) {
        behind_reset_.push_back(std::move(task));
    } else {
        task();
    }
}

void RunControl::reset_when_idle(system::Done done) {
    if (vm_.runstate().busy()) {
        // No arc leads to `colo`: the controller refuses this when its turn comes, and thereby
        // tells that what went before is over.
        vm_.runstate().stop(RunState::Colo, [this, weak = std::weak_ptr(alive_),
                                             done = std::move(done)](const Result<>&) mutable {
            if (weak.expired()) return;
            vm_.loop().post([this, weak, done = std::move(done)]() mutable {
                if (!weak.expired()) reset_when_idle(std::move(done));
            });
        });
        return;
    }
    const RunState state = vm_.runstate().state();
    if (state == RunState::FinishMigrate) {
        return reset_over(std::move(done),
                          make_error(ErrorKind::InvalidState, "Migration is not finalized yet"));
    }
    if (state == RunState::InMigrate && vm_.migration().query().status == MigrationStatus::Active) {
        return reset_over(
            std::move(done),
            make_error(ErrorKind::InvalidState, "Guest is waiting for an incoming migration"));
    }
    vm_.reset(
        [this, weak = std::weak_ptr(alive_), done = std::move(done)](Result<> result) mutable {
            if (!weak.expired()) reset_over(std::move(done), std::move(result));
        });
}

void RunControl::reset_over(system::Done done, Result<> result) {
    reset_ = Reset::None;
    const RunState state = vm_.runstate().state();
    const bool fresh =
        !system::is_live(state) && state != RunState::InMigrate && state != RunState::FinishMigrate;
    if (result && fresh) result = vm_.runstate().set_state(RunState::PreLaunch);
    done(std::move(result));
    while (reset_ == Reset::None && !behind_reset_.empty()) {
        Task task = std::move(behind_reset_.front());
        behind_reset_.pop_front();
        task();
    }
}

}  // namespace ferry::monitor
