// SPDX-License-Identifier: BSD-2-Clause
// The thread that loads one device's packets, so that all devices load at the same time.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "migration/device-state.h"
#include "util/result.h"

namespace ferry::vfio {

class StateLoader {
 public:
    using Packet = migration::StateQueue::Packet;
    // Starts the thread; `load` runs on it. The queue outlives this, and has ended or failed when
    // this is destroyed.
    static Result<std::unique_ptr<StateLoader>> start(const std::string& name,
                                                      migration::StateQueue& queue,
                                                      std::function<Result<>(const Packet&)> load);
    ~StateLoader() = default;
    StateLoader(const StateLoader&) = delete;
    StateLoader& operator=(const StateLoader&) = delete;

    // `done` is called when the last packet is loaded, or with the error: by whom comes second.
    void when_done(std::move_only_function<void(Result<>)> done);
    // Waits for that.
    Result<> wait();

 private:
    StateLoader(migration::StateQueue& queue, std::function<Result<>(const Packet&)> load)
        : queue_(queue), load_(std::move(load)) {}
    Result<> run();

    migration::StateQueue& queue_;
    std::function<Result<>(const Packet&)> load_;
    std::mutex mutex_;
    std::optional<Result<>> outcome_;
    std::move_only_function<void(Result<>)> done_;
    std::jthread thread_;  // last: joined before the rest goes
};

}  // namespace ferry::vfio
