// SPDX-License-Identifier: BSD-2-Clause
// What stands in for a busy guest where no CPU runs: a thread that writes verifiable records into
// guest memory at a given rate, while the VM runs. See docs/devel/workload.rst.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "accel/qtest/workload-pattern.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/env.h"
#include "util/result.h"

namespace ferry::qtest {

// All that decides what is written next; this is what migrates. Sizes in bytes.
struct WorkloadState {
    uint64_t position = 0;  // sequence number of the last write
    uint64_t pages_per_second = 1000;
    uint64_t working_set = 0;  // multiple of the page size
    system::Gpa offset = 0;    // where the working set begins, page-aligned
    uint64_t seed = 1;
    Order order = Order::Sequential;
    Fill fill = Fill::Page;
};

class Workload {
 public:
    static constexpr uint64_t kMaxPagesPerSecond = 1'000'000'000;

    // Starts paused. The memory must be mapped already and outlive the workload.
    static Result<std::unique_ptr<Workload>> create(std::string id, WorkloadState state,
                                                    system::GuestMemory& memory, util::Env& env);
    ~Workload();  // waits for at most one batch of writes
    Workload(const Workload&) = delete;
    Workload& operator=(const Workload&) = delete;

    const std::string& id() const { return id_; }
    WorkloadState state() const;  // any thread; exact while paused

    // Main loop thread. `parked` is called once, by the workload's thread or at once, when nothing
    // is written any more.
    void pause(std::function<void()> parked);
    void resume();  // after the last pause's `parked`
    // At any time. InvalidArgument when out of range.
    Result<> set_pages_per_second(uint64_t rate);
    // Percent of the rate that is left out, 0 to 99. Not part of the state.
    void set_throttle(unsigned percent);
    // Only while paused. InvalidArgument when it does not fit the memory of this VM.
    Result<> restore(const WorkloadState& state);

 private:
    enum class Wanted : uint8_t { Pause, Run, End };

    Workload(std::string id, system::GuestMemory& memory, util::Env& env);
    Result<> check(const WorkloadState& state) const;
    void thread_main();
    void run_until_paused(std::unique_lock<std::mutex>& lock);
    void write_pages(uint64_t count);

    const std::string id_;
    system::GuestMemory& memory_;
    util::Env& env_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<Wanted> wanted_ = Wanted::Pause;       // changed with mutex_ held
    bool parked_ = true;                               // mutex_
    std::vector<std::function<void()>> parked_calls_;  // mutex_
    WorkloadState config_;           // mutex_; without position and rate only changed while parked
    unsigned throttle_percent_ = 0;  // mutex_
    // Written by the thread while it runs, by restore() while it is parked.
    std::atomic<uint64_t> position_ = 0;
    std::jthread thread_;  // last: uses all of the above
};

// The virtual CPUs of a VM under qtest: its workloads. Main loop thread.
class WorkloadVcpus final : public system::VcpuControl {
 public:
    void add(Workload& workload) { workloads_.push_back(&workload); }
    void pause(system::Done done) override;
    void resume() override;
    Result<> set_throttle(unsigned percent) override;

 private:
    std::vector<Workload*> workloads_;
};

}  // namespace ferry::qtest
