// SPDX-License-Identifier: BSD-2-Clause
// One CPU of the guest: a descriptor of KVM and the thread that runs it.
//
// To stop it, the thread is sent a signal that is blocked everywhere but inside KVM_RUN. A signal
// that comes a moment too early therefore stays pending and ends the next KVM_RUN before it begins;
// it cannot get lost between "shall I go on?" and the guest's first instruction. Before the thread
// parks it lets the kernel complete the access that the last exit was for, so that the state read
// afterwards lies between two instructions.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "accel/kvm/bus.h"
#include "accel/kvm/vcpu-state.h"
#include "accel/kvm/vm.h"
#include "util/env.h"
#include "util/mapped-region.h"
#include "util/result.h"

namespace ferry::kvm {

// Why a CPU does not go on by itself.
struct GuestEnd {
    enum class Kind : uint8_t {
        TripleFault,  // a PC resets then
        PowerOff,     // KVM's own events, asked for by the guest
        Reset,
        Crash,
        InternalError,  // the kernel cannot execute the guest
    };
    Kind kind;
    unsigned vcpu;
    std::string text;  // for people
};
std::string_view to_string(GuestEnd::Kind kind);

class Vcpu {
 public:
    using Job = std::move_only_function<void()>;
    // Called on the CPU's thread; the CPU then waits until it is paused and resumed.
    using OnEnd = std::function<void(const GuestEnd& end)>;

    // Starts parked. All but the CPUID table are borrowed for the object's life.
    static Result<std::unique_ptr<Vcpu>> create(KvmVm& vm, unsigned index,
                                                const std::vector<kvm_cpuid_entry2>& cpuid,
                                                Bus& bus, util::Env& env, OnEnd on_end);
    ~Vcpu();  // stops it; waits for an access that it is in
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    unsigned index() const { return index_; }
    BorrowedFd fd() const { return fd_.borrow(); }
    int thread_id() const { return thread_id_; }  // the kernel's

    // Main loop thread. `parked` is called once, on the CPU's thread or at once, when it executes
    // nothing any more.
    void pause(Job parked);
    void resume();  // after the last pause's `parked`
    // Executes nothing for so long, unless it is paused meanwhile. Replaces a rest not begun.
    void rest(util::Nanoseconds duration);
    // Any thread. Runs on the CPU's thread while it is parked, before a later resume takes effect.
    void post(Job job);

 private:
    enum class Wanted : uint8_t { Pause, Run, End };
    enum class Step : uint8_t { GoOn, Wait };

    Vcpu(KvmVm& vm, unsigned index, Bus& bus, util::Env& env, OnEnd on_end);
    Result<> set_cpuid(const std::vector<kvm_cpuid_entry2>& cpuid);
    Result<> start_thread();
    void kick();
    kvm_run& run() const;

    // The CPU's thread.
    Result<> prepare_thread();
    void thread_main();
    void run_jobs(std::unique_lock<std::mutex>& lock);
    void run_until_paused();
    void wait_while_wanted_to_run();
    void take_rest();
    Step enter_guest();
    Step handle_exit();
    Step handle_io();
    Step handle_mmio();
    Step handle_system_event();
    Step handle_full_ring();
    Step end(GuestEnd::Kind kind, std::string text);
    // One KVM_RUN. False: a signal ended it, there is no exit to handle.
    Result<bool> kvm_run_once();
    void complete_access();

    KernelCalls& calls_;
    DirtyRings* const dirty_rings_;  // null: there are none
    const unsigned index_;
    Bus& bus_;
    util::Env& env_;
    const OnEnd on_end_;
    UniqueFd fd_;
    util::MappedRegion run_;
    int thread_id_ = 0;  // written before create() is over

    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<Wanted> wanted_ = Wanted::Pause;                      // changed with mutex_ held
    bool parked_ = true;                                              // mutex_
    std::atomic<util::Nanoseconds> rest_{util::Nanoseconds::zero()};  // still to be taken
    std::vector<Job> parked_calls_;                                   // mutex_
    std::deque<Job> jobs_;                                            // mutex_
    std::jthread thread_;                                             // last: uses all of the above
};

}  // namespace ferry::kvm
