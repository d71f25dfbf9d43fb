// SPDX-License-Identifier: BSD-2-Clause
// The guest's time under qtest: stands still until the client moves it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "util/registration.h"

namespace ferry::qtest {

// Something that becomes due at a time of the clock. Called on the thread that moves it.
class VirtualTimer {
 public:
    virtual ~VirtualTimer() = default;
    virtual std::optional<int64_t> deadline() = 0;  // nothing: never
    // The clock has moved, perhaps to the deadline; which is then a later one, or none.
    virtual void time_passed() = 0;
};

// Thread-safe. Nanoseconds since the VM was created; never goes backwards.
class VirtualClock {
 public:
    int64_t now() const { return now_.load(std::memory_order_acquire); }
    // Nothing when that would be backwards or beyond the largest time.
    std::optional<int64_t> advance(int64_t by) {
        int64_t later = 0;
        if (by < 0 || __builtin_add_overflow(now(), by, &later)) return std::nullopt;
        return set(later);
    }
    std::optional<int64_t> set(int64_t to) {
        int64_t before = now();
        while (before <= to) {
            if (now_.compare_exchange_weak(before, to, std::memory_order_acq_rel)) return to;
        }
        return std::nullopt;
    }
    // What a migration brought, wherever that lies.
    void restore(int64_t to) { now_.store(to, std::memory_order_release); }

    // Until the Registration goes, which waits for a run() under way.
    util::Registration add_timer(VirtualTimer& timer) {
        const std::lock_guard lock(mutex_);
        timers_.push_back(&timer);
        return util::Registration([this, &timer] {
            const std::lock_guard inner(mutex_);
            std::erase(timers_, &timer);
        });
    }
    // When the next timer is due.
    std::optional<int64_t> next_deadline() {
        const std::lock_guard lock(mutex_);
        return earliest();
    }
    // As set(), stopping at each timer that is due on the way.
    std::optional<int64_t> run(int64_t to) {
        const std::lock_guard lock(mutex_);
        if (to < now()) return std::nullopt;
        for (auto due = earliest(); due && *due <= to; due = earliest()) {
            const int64_t stop = std::max(*due, now());
            set(stop);
            notify();
            // One that is still due does not keep the clock from moving on.
            if (const auto next = earliest(); next && *next <= stop) break;
        }
        const auto reached = set(to);
        notify();
        return reached;
    }

 private:
    std::optional<int64_t> earliest() const {
        std::optional<int64_t> first;
        for (VirtualTimer* timer : timers_) {
            const auto due = timer->deadline();
            if (due && (!first || *due < *first)) first = due;
        }
        return first;
    }
    void notify() const {
        for (VirtualTimer* timer : timers_) timer->time_passed();
    }

    std::mutex mutex_;
    std::vector<VirtualTimer*> timers_;  // mutex_
    std::atomic<int64_t> now_ = 0;
};

}  // namespace ferry::qtest
