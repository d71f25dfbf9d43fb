// SPDX-License-Identifier: BSD-2-Clause
// Several parts of the VM work at the same time, and somebody waits for all of them.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "system/main-loop.h"
#include "system/runstate.h"

namespace ferry::vmm {

// Calls `done` on the loop thread once `count` parts have reported, with the first error.
class Gathering {
 public:
    Gathering(system::MainLoop& loop, size_t count, system::Done done)
        : loop_(loop), outstanding_(count), done_(std::move(done)) {}

    // Any thread.
    void part_done(Result<> part) {
        {
            const std::lock_guard lock(mutex_);
            if (!part && !error_) error_ = std::move(part).error();
            if (--outstanding_ > 0) return;
        }
        Result<> whole = error_ ? Result<>(std::move(*error_)) : Result<>();
        loop_.post([done = std::move(done_), whole = std::move(whole)]() mutable {
            done(std::move(whole));
        });
    }

 private:
    system::MainLoop& loop_;
    std::mutex mutex_;
    size_t outstanding_;          // mutex_
    std::optional<Error> error_;  // mutex_
    system::Done done_;
};

}  // namespace ferry::vmm
