// SPDX-License-Identifier: BSD-2-Clause
// Time is injected: nothing in the library reads a clock or sleeps by itself.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace ferry::util {

using Nanoseconds = std::chrono::nanoseconds;

class Clock {
 public:
    virtual ~Clock() = default;
    // Monotonic, thread-safe.
    virtual Nanoseconds now() const = 0;
    // Waits on `cv` until it is notified or `deadline` (in this clock's time) has passed; the
    // caller holds `lock` and checks its predicate itself. Spurious returns are allowed.
    virtual void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                            Nanoseconds deadline) = 0;
};

// CLOCK_MONOTONIC: comparable between processes of one host.
class SystemClock final : public Clock {
 public:
    Nanoseconds now() const override;
    void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                    Nanoseconds deadline) override;
};

}  // namespace ferry::util
