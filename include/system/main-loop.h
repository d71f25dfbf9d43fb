// SPDX-License-Identifier: BSD-2-Clause
// The main loop belongs to the embedder; Ferry sees it through this interface. All VM-level state
// changes happen on the thread that runs it, and nothing Ferry does on it blocks.
#pragma once

#include <cstdint>
#include <functional>

#include "util/clock.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::system {

class MainLoop {
 public:
    using Task = std::move_only_function<void()>;
    virtual ~MainLoop() = default;

    // Any thread, also the loop's own: runs `task` later on the loop thread, in order of posting.
    virtual void post(Task task) = 0;
    virtual bool on_loop_thread() const = 0;

    // Loop thread only. The callbacks run on the loop thread until the Registration goes.
    virtual util::Registration every(util::Nanoseconds period, std::function<void()> tick) = 0;
    enum class FdEvent : uint8_t { Readable, Writable };
    virtual util::Registration watch_fd(BorrowedFd fd, FdEvent event,
                                        std::function<void()> ready) = 0;
};

// Runs `call` on the loop thread and waits for its value. From any other thread; the loop must
// be running. Use only for short, non-blocking work.
Result<> run_on_loop(MainLoop& loop, std::function<Result<>()> call);

}  // namespace ferry::system
