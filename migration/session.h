// SPDX-License-Identifier: BSD-2-Clause
// What the source's and the destination's sessions share: the VM they work on, the settings that
// act at once, and the statistics that stay visible when the session is over.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "migration/device-state-accounting.h"
#include "migration/global-state.h"
#include "migration/migration.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/status.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/env.h"

namespace ferry::migration {

// Written by the session's thread, read by anybody. Times in this VM's clock.
struct AttemptStats {
    std::atomic<uint64_t> transferred_bytes = 0;
    std::atomic<uint64_t> downtime_bytes = 0;  // of the main channel, while the VM stood still
    std::atomic<uint64_t> multifd_bytes = 0;   // on the page channels
    std::atomic<uint64_t> throughput_bytes_per_s = 0;
    std::atomic<uint64_t> expected_downtime_ms = 0;
    std::atomic<unsigned> cpu_throttle_percentage = 0;  // 0: none
    std::atomic<int64_t> begin_ns = 0;
    std::atomic<int64_t> setup_end_ns = 0;
    std::atomic<int64_t> pause_begin_ns = 0;
    std::atomic<int64_t> end_ns = 0;

    void reset();
};

// One VM, as its sessions see it. Outlives them.
struct SessionContext {
    system::MainLoop& loop;
    util::Env& env;
    system::RunStateController& runstate;
    system::GuestMemory& memory;
    SaveVMRegistry& registry;
    DeviceStateAccounting& device_state;
    StreamIdentity identity;
    GlobalState& global_state;               // loop thread
    std::function<Parameters()> parameters;  // the present ones, any thread
    const StreamOptions& stream;             // does not change during an attempt
    StatusMachine& status;
    AttemptStats& stats;
    RamStats& ram;
};

// A one-shot answer that a thread waits for while the main loop, a worker or a peer prepares it.
// Shared by both sides, so that neither outlives it.
class Answer {
 public:
    void give(Result<> value);
    // Waits; the clock ticks `each_period` meanwhile (called without the lock).
    Result<> wait(util::Clock& clock, util::Nanoseconds period,
                  const std::function<void()>& each_period);
    Result<> wait();

 private:
    std::mutex mutex_;
    std::condition_variable given_;
    std::optional<Result<>> value_;
};

// Asks the main loop to do something to the VM that ends with a Done, and waits for it.
Result<> await_on_loop(system::MainLoop& loop, std::function<void(system::Done)> request);

}  // namespace ferry::migration
