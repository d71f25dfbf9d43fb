// SPDX-License-Identifier: BSD-2-Clause
// A main loop on a thread of its own, as an embedder might write one without GLib. Timers follow
// the given clock. run() executes a call on the loop and waits, from the test's thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "system/main-loop.h"
#include "util/event-fd.h"

namespace ferry::test {

class TestLoop final : public system::MainLoop {
 public:
    explicit TestLoop(util::Clock& clock);
    ~TestLoop() override;

    void post(Task task) override;
    bool on_loop_thread() const override;
    util::Registration every(util::Nanoseconds period, std::function<void()> tick) override;
    util::Registration watch_fd(BorrowedFd fd, FdEvent event, std::function<void()> ready) override;

    // Test's thread. Waits until `call` has run on the loop.
    void run(const std::function<void()>& call);
    // Test's thread. Waits (really, with a generous limit) until `condition` holds; it is evaluated
    // on the loop thread whenever something was posted, and now and then. False when the limit
    // passed.
    bool wait_for(const std::function<bool()>& condition);
    // Looks at the timers again: call after FakeClock::advance().
    void tick();

 private:
    struct Timer {
        util::Nanoseconds period;
        util::Nanoseconds next;
        std::function<void()> tick;
    };
    struct Watch {
        int fd;
        FdEvent event;
        std::function<void()> ready;
    };
    void loop();
    void run_timers();

    util::Clock& clock_;
    util::EventFd wake_;
    std::mutex mutex_;
    std::condition_variable posted_;
    uint64_t posts_ = 0;
    std::deque<Task> tasks_;
    bool closing_ = false;
    // loop thread only
    std::list<std::shared_ptr<Timer>> timers_;
    std::list<std::shared_ptr<Watch>> watches_;
    std::jthread thread_;
};

}  // namespace ferry::test
