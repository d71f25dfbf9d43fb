// SPDX-License-Identifier: BSD-2-Clause
// The guest's time: what the virtual clock has shown plus what has passed since the VM was started.
// Under qtest nothing passes by itself. The virtual clock is what migrates.
#pragma once

#include <mutex>
#include <optional>

#include "accel/qtest/virtual-clock.h"
#include "util/clock.h"

namespace ferry::vmm {

// Thread-safe.
class RunningClock {
 public:
    enum class Passing : uint8_t { ByItself, ByTest };
    RunningClock(qtest::VirtualClock& base, const util::Clock& clock, Passing passing)
        : base_(base), clock_(clock), passing_(passing) {}

    util::Nanoseconds now() const {
        const std::lock_guard lock(mutex_);
        return util::Nanoseconds(base_.now()) + since_start();
    }
    void start() {
        const std::lock_guard lock(mutex_);
        if (passing_ == Passing::ByItself && !started_) started_ = clock_.now();
    }
    void stop() {
        const std::lock_guard lock(mutex_);
        base_.advance(since_start().count());
        started_.reset();
    }

 private:
    util::Nanoseconds since_start() const {
        return started_ ? clock_.now() - *started_ : util::Nanoseconds::zero();
    }

    qtest::VirtualClock& base_;
    const util::Clock& clock_;
    const Passing passing_;
    mutable std::mutex mutex_;
    std::optional<util::Nanoseconds> started_;  // mutex_
};

}  // namespace ferry::vmm
