// SPDX-License-Identifier: BSD-2-Clause
// The guest's time under qtest: stands still until the client moves it.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace ferry::qtest {

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

 private:
    std::atomic<int64_t> now_ = 0;
};

}  // namespace ferry::qtest
