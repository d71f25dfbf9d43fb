// SPDX-License-Identifier: BSD-2-Clause
// Whether the VM runs, and the ordered two-pass way of stopping and starting it.
//
//   stop:  pause vCPUs -> prepare pass (deepest devices first) -> main pass (same order)
//   start: prepare pass (bus parents first) -> main pass (same order) -> resume vCPUs
//
// Within a pass, handlers of equal depth work in parallel on threads of their own; a pass begins
// when the pass before it is over for all. A failure undoes what was done and keeps the first
// error. See docs/devel/run-state.rst.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "system/main-loop.h"
#include "util/env.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::system {

// QMP's RunState, the values a migration can meet.
enum class RunState : uint8_t {
    Debug,
    InMigrate,
    InternalError,
    IoError,
    Paused,
    PostMigrate,
    PreLaunch,
    FinishMigrate,
    RestoreVm,
    Running,
    SaveVm,
    Shutdown,
    Suspended,
    Watchdog,
    GuestPanicked,
    Colo,
};
std::string_view to_string(RunState state);  // QMP's spelling, e.g. "finish-migrate"
Result<RunState> run_state_from_name(std::string_view name);
// Guest time passes: stopping from here needs the handlers and emits STOP.
constexpr bool is_live(RunState state) {
    return state == RunState::Running || state == RunState::Suspended;
}

enum class Direction : uint8_t { Stop, Start };
enum class Pass : uint8_t { Prepare, Main };

// What a handler is asked to do. `state` is the run state that follows the change, so a stop's
// handler can tell finish-migrate from a user's pause.
struct VmChange {
    Direction direction;
    RunState state;
};

using Done = std::move_only_function<void(Result<>)>;

// Something that stops and starts with the VM. Called on the main loop thread; must not block:
// hand the work to a thread and call `done` from anywhere, exactly once.
class VmChangeHandler {
 public:
    virtual ~VmChangeHandler() = default;
    virtual std::string_view name() const = 0;
    virtual unsigned depth() const = 0;  // in the device tree; 0 = root
    virtual bool has_prepare() const = 0;
    virtual void vm_change(Pass pass, VmChange change, Done done) = 0;
};

// The vCPUs, or what stands in for them. Main loop thread.
class VcpuControl {
 public:
    virtual ~VcpuControl() = default;
    virtual void pause(Done done) = 0;  // done when no vCPU touches memory or devices any more
    virtual void resume() = 0;
    // Percent of their time for which the vCPUs sleep, 0 to 99, from now on and over pauses.
    // Unsupported where they can't: then no migration may use auto-converge.
    virtual Result<> set_throttle(unsigned percent);
};

enum class RunStateEvent : uint8_t { Stop, Resume };

// All methods but state() on the main loop thread.
class RunStateController {
 public:
    RunStateController(MainLoop& loop, util::Env& env, RunState initial);

    RunState state() const { return state_.load(std::memory_order_acquire); }  // any thread
    // A stop, a start or exclusive work is under way.
    bool busy() const { return current_.has_value(); }

    void set_vcpus(VcpuControl* vcpus) { vcpus_ = vcpus; }
    Result<> set_throttle(unsigned percent);  // of the vCPUs
    // May be given back while a transition is under way, by a handler that owes no answer.
    util::Registration add_handler(VmChangeHandler& handler);
    util::Registration on_event(std::function<void(RunStateEvent)> listener);

    // Queued behind what is under way and judged when their turn comes; `done` is called on the
    // loop thread.
    // stop: from a live state runs the passes, from any other only changes the state.
    void stop(RunState to, Done done);
    // start: to Running, or to Suspended if it was that when it was stopped. Nothing to do when it
    // runs already.
    void start(Done done);
    // The same as a person's commands: user_stop leaves a VM alone that is stopped already,
    // user_cont is refused while a migration holds the VM. In a VM that waits for its state they
    // decide whether it will run when it has arrived.
    void user_stop(Done done);
    void user_cont(Done done);
    // Whether user_stop came while a migration held the VM: it is then taken back to paused.
    bool user_stopped_meanwhile() const { return user_stopped_meanwhile_; }
    // Whether the guest sleeps: it was stopped while suspended, so that a start suspends it again.
    // A destination says so of the VM that it has loaded.
    void set_was_suspended(bool was_suspended) { was_suspended_ = was_suspended; }
    bool was_suspended() const { return was_suspended_; }
    bool autostart() const { return autostart_; }
    void set_autostart(bool autostart) { autostart_ = autostart; }
    // Work that no stop or start may overlap (a reset). It looks at the state when its turn comes,
    // and its own Done, from any thread, lets the queue go on.
    using Work = std::move_only_function<void(Done)>;
    void exclusively(Work work, Done done);
    // Changes the state without touching anything; between non-live states only.
    Result<> set_state(RunState to);

 private:
    enum class Origin : uint8_t { Machine, User };
    struct Request {
        Direction direction;
        RunState to;
        Origin origin;
        Done done;
        Work work = nullptr;  // instead of a change of state
    };
    struct Transition {
        Request request;
        RunState from;
        Direction doing;  // differs from request.direction while undoing
        Pass pass = Pass::Prepare;
        std::vector<VmChangeHandler*> order;  // this pass, in groups of equal depth
        size_t next = 0;                      // first handler not started yet
        size_t outstanding = 0;
        std::optional<Error> error;
        bool undoing() const { return doing != request.direction; }
    };

    void enter(RunState to);
    void forget(VmChangeHandler& handler);
    void submit(Request request);
    // An answer that needs no transition, or nothing when one is needed.
    std::optional<Result<>> judge(const Request& request);
    void begin_next();
    void run_passes(Direction direction);
    void start_group();
    void handler_done(const std::string& who, Result<> result);
    void pass_over();
    void passes_over();
    void finish(Result<> result);
    void emit(RunStateEvent event);

    MainLoop& loop_;
    util::Env& env_;
    std::atomic<RunState> state_;
    VcpuControl* vcpus_ = nullptr;
    std::vector<VmChangeHandler*> handlers_;
    std::vector<std::pair<uint64_t, std::function<void(RunStateEvent)>>> listeners_;
    uint64_t next_listener_ = 0;
    std::deque<Request> queue_;
    std::optional<Transition> current_;
    bool user_stopped_meanwhile_ = false;
    bool was_suspended_ = false;
    bool autostart_ = true;
};

}  // namespace ferry::system
