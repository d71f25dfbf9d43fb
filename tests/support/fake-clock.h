// SPDX-License-Identifier: BSD-2-Clause
// Time that moves only when a test says so.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "util/clock.h"

namespace ferry::test {

class FakeClock final : public util::Clock {
 public:
    util::Nanoseconds now() const override {
        const std::lock_guard lock(mutex_);
        return now_;
    }
    void wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                    util::Nanoseconds deadline) override;
    // Wakes everybody whose deadline has come.
    void advance(util::Nanoseconds by);

 private:
    struct Waiter {
        std::condition_variable* cv;
        std::mutex* mutex;
        unsigned visitors = 0;  // advance() is about to wake it: it must not go yet
    };
    mutable std::mutex mutex_;  // taken with a waiter's mutex held, never the other way round
    std::condition_variable left_;
    util::Nanoseconds now_ = std::chrono::seconds(1000);
    std::vector<Waiter*> waiters_;
};

}  // namespace ferry::test
