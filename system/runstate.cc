// SPDX-License-Identifier: BSD-2-Clause
#include "system/runstate.h"

#include <algorithm>
#include <array>
#include <utility>

#include "trace-points.h"
#include "util/try.h"

namespace ferry::system {

namespace {

struct StateName {
    RunState state;
    std::string_view name;
};
constexpr std::array kNames = {
    StateName{RunState::Debug, "debug"},
    StateName{RunState::InMigrate, "inmigrate"},
    StateName{RunState::InternalError, "internal-error"},
    StateName{RunState::IoError, "io-error"},
    StateName{RunState::Paused, "paused"},
    StateName{RunState::PostMigrate, "postmigrate"},
    StateName{RunState::PreLaunch, "prelaunch"},
    StateName{RunState::FinishMigrate, "finish-migrate"},
    StateName{RunState::RestoreVm, "restore-vm"},
    StateName{RunState::Running, "running"},
    StateName{RunState::SaveVm, "save-vm"},
    StateName{RunState::Shutdown, "shutdown"},
    StateName{RunState::Suspended, "suspended"},
    StateName{RunState::Watchdog, "watchdog"},
    StateName{RunState::GuestPanicked, "guest-panicked"},
    StateName{RunState::Colo, "colo"},
};

struct Arc {
    RunState from;
    RunState to;
};
// spec: QMP run state transitions that a VM without disks and consoles can make, plus ours:
// inmigrate again out of postmigrate (a VM that comes back), and finish-migrate for snapshots.
using enum RunState;
constexpr std::array kArcs = {
    Arc{PreLaunch, Running},
    Arc{PreLaunch, InMigrate},
    Arc{PreLaunch, FinishMigrate},
    Arc{PreLaunch, Suspended},
    Arc{PreLaunch, Paused},
    Arc{PreLaunch, SaveVm},
    Arc{PreLaunch, RestoreVm},
    Arc{PostMigrate, RestoreVm},
    Arc{SaveVm, Shutdown},
    Arc{Running, Paused},
    Arc{Running, FinishMigrate},
    Arc{Running, Suspended},
    Arc{Running, Shutdown},
    Arc{Running, InternalError},
    Arc{Running, SaveVm},
    Arc{Running, RestoreVm},
    Arc{Running, IoError},
    Arc{Running, Watchdog},
    Arc{Running, GuestPanicked},
    Arc{Running, Debug},
    Arc{Running, PreLaunch},
    Arc{Paused, Running},
    Arc{Paused, FinishMigrate},
    Arc{Paused, PreLaunch},
    Arc{Paused, SaveVm},
    Arc{Paused, RestoreVm},
    Arc{Paused, InMigrate},
    Arc{Paused, Suspended},
    Arc{Suspended, Running},
    Arc{Suspended, FinishMigrate},
    Arc{Suspended, Paused},
    Arc{Suspended, PreLaunch},
    Arc{Suspended, Shutdown},
    Arc{Suspended, SaveVm},
    Arc{InMigrate, Running},
    Arc{InMigrate, Paused},
    Arc{InMigrate, PreLaunch},
    Arc{InMigrate, Suspended},
    Arc{InMigrate, PostMigrate},
    Arc{InMigrate, FinishMigrate},
    Arc{InMigrate, Shutdown},
    Arc{FinishMigrate, PostMigrate},
    Arc{FinishMigrate, Running},
    Arc{FinishMigrate, Paused},
    Arc{FinishMigrate, PreLaunch},
    Arc{FinishMigrate, Suspended},
    Arc{FinishMigrate, Shutdown},
    Arc{PostMigrate, Running},
    Arc{PostMigrate, FinishMigrate},
    Arc{PostMigrate, PreLaunch},
    Arc{PostMigrate, InMigrate},
    Arc{PostMigrate, Paused},
    Arc{Shutdown, Paused},
    Arc{Shutdown, PreLaunch},
    Arc{Shutdown, FinishMigrate},
    Arc{SaveVm, Running},
    Arc{SaveVm, Paused},
    Arc{SaveVm, PreLaunch},
    Arc{SaveVm, Suspended},
    Arc{RestoreVm, Running},
    Arc{RestoreVm, Paused},
    Arc{RestoreVm, PreLaunch},
    Arc{IoError, Running},
    Arc{IoError, FinishMigrate},
    Arc{InternalError, Paused},
    Arc{InternalError, PreLaunch},
    Arc{Watchdog, Running},
    Arc{GuestPanicked, Running},
    Arc{Debug, Running},
};

Result<> check_arc(RunState from, RunState to) {
    if (from == to) return {};
    for (const Arc& arc : kArcs) {
        if (arc.from == from && arc.to == to) return {};
    }
    return make_error(ErrorKind::InvalidState, "a VM in state '{}' can't become '{}'",
                      to_string(from), to_string(to));
}

}  // namespace

std::string_view to_string(RunState state) {
    for (const StateName& entry : kNames) {
        if (entry.state == state) return entry.name;
    }
    return "invalid";
}

Result<RunState> run_state_from_name(std::string_view name) {
    for (const StateName& entry : kNames) {
        if (entry.name == name) return entry.state;
    }
    return make_error(ErrorKind::Protocol, "unknown run state '{}'", name);
}

RunStateController::RunStateController(MainLoop& loop, util::Env& env, RunState initial)
    : loop_(loop), env_(env), state_(initial) {}

Result<> VcpuControl::set_throttle(unsigned) {
    return make_error(ErrorKind::Unsupported, "the CPUs of this VM can't be slowed down");
}

Result<> RunStateController::set_throttle(unsigned percent) {
    if (vcpus_ == nullptr) return make_error(ErrorKind::Unsupported, "this VM has no CPUs");
    return vcpus_->set_throttle(percent);
}

util::Registration RunStateController::add_handler(VmChangeHandler& handler) {
    handlers_.push_back(&handler);
    return util::Registration([this, &handler] { forget(handler); });
}

void RunStateController::forget(VmChangeHandler& handler) {
    std::erase(handlers_, &handler);
    if (!current_) return;
    // Those before `next` were asked; who leaves answers first.
    auto& order = current_->order;
    const auto to_come = order.begin() + static_cast<ptrdiff_t>(current_->next);
    order.erase(std::remove(to_come, order.end(), &handler), order.end());
}

util::Registration RunStateController::on_event(std::function<void(RunStateEvent)> listener) {
    const uint64_t id = next_listener_++;
    listeners_.emplace_back(id, std::move(listener));
    return util::Registration(
        [this, id] { std::erase_if(listeners_, [id](const auto& l) { return l.first == id; }); });
}

void RunStateController::emit(RunStateEvent event) {
    const auto listeners = listeners_;  // a listener may come or go meanwhile
    for (const auto& [id, listener] : listeners) listener(event);
}

void RunStateController::stop(RunState to, Done done) {
    submit({Direction::Stop, to, Origin::Machine, std::move(done)});
}

void RunStateController::start(Done done) {
    submit({Direction::Start, RunState::Running, Origin::Machine, std::move(done)});
}

void RunStateController::user_stop(Done done) {
    submit({Direction::Stop, RunState::Paused, Origin::User, std::move(done)});
}

void RunStateController::user_cont(Done done) {
    submit({Direction::Start, RunState::Running, Origin::User, std::move(done)});
}

void RunStateController::exclusively(Work work, Done done) {
    submit({Direction::Stop, RunState::Paused, Origin::Machine, std::move(done), std::move(work)});
}

Result<> RunStateController::set_state(RunState to) {
    const RunState from = state();
    MIG_CHECK(check_arc(from, to));
    if (from != to) {
        enter(to);
    }
    return {};
}

void RunStateController::enter(RunState to) {
    if (is_live(to) || to == RunState::PreLaunch) {
        was_suspended_ = false;
    } else if (state() == RunState::Suspended) {
        was_suspended_ = true;
    }
    trace::runstate_set(env_.trace, to_string(state()), to_string(to));
    state_.store(to, std::memory_order_release);
    user_stopped_meanwhile_ = false;
}

void RunStateController::submit(Request request) {
    queue_.push_back(std::move(request));
    if (!current_) begin_next();
}

std::optional<Result<>> RunStateController::judge(const Request& request) {
    const RunState from = state();
    if (request.work) return std::nullopt;
    if (request.origin == Origin::User && from == RunState::InMigrate) {
        autostart_ = request.direction == Direction::Start;
        return Result<>();
    }
    if (request.direction == Direction::Stop && !is_live(from)) {
        if (request.origin == Origin::Machine) return set_state(request.to);
        if (from == RunState::FinishMigrate) user_stopped_meanwhile_ = true;
        return Result<>();
    }
    if (request.direction == Direction::Start) {
        if (from == RunState::Running || from == request.to) return Result<>();
        if (request.origin == Origin::User) {
            if (from == RunState::FinishMigrate || from == RunState::SaveVm ||
                from == RunState::RestoreVm) {
                return make_error(ErrorKind::InvalidState, "Migration is not finalized yet");
            }
            if (from == RunState::Shutdown || from == RunState::InternalError) {
                return make_error(ErrorKind::InvalidState,
                                  "Resetting the Virtual Machine is required");
            }
            if (from == RunState::Suspended) return Result<>();
        }
    }
    if (auto legal = check_arc(from, request.to); !legal) return legal;
    return std::nullopt;
}

void RunStateController::begin_next() {
    while (!current_ && !queue_.empty()) {
        Request request = std::move(queue_.front());
        queue_.pop_front();
        if (request.direction == Direction::Start && was_suspended_) {
            request.to = RunState::Suspended;
        }
        const RunState from = state();
        if (auto answer = judge(request)) {
            request.done(std::move(*answer));
            continue;
        }
        current_ = Transition{.request = std::move(request),
                              .from = from,
                              .doing = Direction::Stop,
                              .order = {},
                              .error = {}};
        if (current_->request.work) {
            current_->request.work([this](Result<> result) {
                loop_.post(
                    [this, result = std::move(result)]() mutable { finish(std::move(result)); });
            });
            return;
        }
        const Direction direction = current_->request.direction;
        if (direction == Direction::Stop && vcpus_ != nullptr) {
            vcpus_->pause([this](Result<> paused) {
                loop_.post([this, paused = std::move(paused)]() mutable {
                    if (!paused) {
                        vcpus_->resume();
                        return finish(std::move(paused).error().context("pausing vCPUs"));
                    }
                    run_passes(Direction::Stop);
                });
            });
        } else {
            run_passes(direction);
        }
    }
}

void RunStateController::run_passes(Direction direction) {
    current_->doing = direction;
    current_->pass = Pass::Prepare;
    current_->order.clear();
    for (VmChangeHandler* handler : handlers_) {
        if (handler->has_prepare()) current_->order.push_back(handler);
    }
    current_->next = 0;
    // Start: parents first. Stop: the exact reverse.
    std::ranges::stable_sort(current_->order, {}, &VmChangeHandler::depth);
    if (direction == Direction::Stop) std::ranges::reverse(current_->order);
    start_group();
}

void RunStateController::start_group() {
    Transition& now = *current_;
    if (now.next == now.order.size()) return pass_over();
    const size_t begin = now.next;
    const unsigned depth = now.order[begin]->depth();
    while (now.next < now.order.size() && now.order[now.next]->depth() == depth) ++now.next;
    const size_t end = now.next;
    now.outstanding = end - begin;
    const VmChange change{now.doing, now.undoing() ? now.from : now.request.to};
    const Pass pass = now.pass;
    const std::vector<VmChangeHandler*> group(now.order.begin() + static_cast<ptrdiff_t>(begin),
                                              now.order.begin() + static_cast<ptrdiff_t>(end));
    for (VmChangeHandler* handler : group) {
        handler->vm_change(
            pass, change, [this, who = std::string(handler->name())](Result<> result) mutable {
                loop_.post([this, who = std::move(who), result = std::move(result)]() mutable {
                    handler_done(who, std::move(result));
                });
            });
    }
}

void RunStateController::handler_done(const std::string& who, Result<> result) {
    Transition& now = *current_;
    if (!result) {
        trace::runstate_handler_failed(env_.trace, who, result.error().message());
        if (now.error) {
            now.error->attach_in_place(std::move(result).error());
        } else {
            now.error = std::move(result).error();
        }
    }
    if (--now.outstanding > 0) return;
    if (now.error && !now.undoing()) {
        // The handlers see the opposite change; those that did not change have nothing to do.
        const Direction back =
            now.request.direction == Direction::Stop ? Direction::Start : Direction::Stop;
        return run_passes(back);
    }
    start_group();
}

void RunStateController::pass_over() {
    Transition& now = *current_;
    if (now.pass == Pass::Main) return passes_over();
    now.pass = Pass::Main;
    now.order = handlers_;
    std::ranges::stable_sort(now.order, {}, &VmChangeHandler::depth);
    if (now.doing == Direction::Stop) std::ranges::reverse(now.order);
    now.next = 0;
    start_group();
}

void RunStateController::passes_over() {
    Transition& now = *current_;
    if (now.undoing()) {
        if (now.request.direction == Direction::Stop && vcpus_ != nullptr) vcpus_->resume();
        return finish(std::move(*now.error));
    }
    const RunState to = now.request.to;
    enter(to);
    if (now.request.direction == Direction::Stop) {
        emit(RunStateEvent::Stop);
    } else {
        emit(RunStateEvent::Resume);
        if (vcpus_ != nullptr) vcpus_->resume();
    }
    finish({});
}

void RunStateController::finish(Result<> result) {
    Done done = std::move(current_->request.done);
    current_.reset();
    done(std::move(result));
    begin_next();
}

}  // namespace ferry::system
