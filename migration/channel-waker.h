// SPDX-License-Identifier: BSD-2-Clause
// How threads that wait on a channel are woken: a reason that stays, and an eventfd that is polled
// beside every descriptor.
#pragma once

#include <poll.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "util/event-fd.h"
#include "util/result.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

// Thread-safe. The first reason is kept.
class Waker {
 public:
    explicit Waker(util::EventFd event) : event_(std::move(event)) {}

    void wake(Error reason) noexcept {
        {
            const std::lock_guard lock(mutex_);
            if (!reason_) reason_ = std::move(reason);
        }
        woken_.store(true, std::memory_order_release);
        event_.signal();
    }

    // The reason once there is one. Costs one load before.
    Result<> check() const {
        if (!woken_.load(std::memory_order_acquire)) return {};
        const std::lock_guard lock(mutex_);
        return *reason_;
    }

    enum class Wait : uint8_t { Ready, TimedOut };
    // Blocks until `fd` is ready for `events`, or in error; the reason when woken.
    Result<Wait> wait(BorrowedFd fd, short events, int timeout_ms = -1) const {
        pollfd fds[] = {{fd.raw(), events, 0}, {event_.fd().raw(), POLLIN, 0}};
        MIG_TRY(const int ready, util::poll_fds(fds, std::size(fds), timeout_ms));
        MIG_CHECK(check());
        return ready == 0 ? Wait::TimedOut : Wait::Ready;
    }

 private:
    util::EventFd event_;
    std::atomic<bool> woken_ = false;
    mutable std::mutex mutex_;
    std::optional<Error> reason_;  // by mutex_
};

}  // namespace ferry::migration
