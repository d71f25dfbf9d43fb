// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/test-loop.h"

#include <poll.h>

#include <chrono>
#include <future>
#include <vector>

namespace ferry::test {

TestLoop::TestLoop(util::Clock& clock)
    : clock_(clock), wake_(*util::EventFd::create()), thread_([this] { loop(); }) {}

TestLoop::~TestLoop() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    wake_.signal();
    if (thread_.joinable()) thread_.join();
}

void TestLoop::post(Task task) {
    {
        const std::lock_guard lock(mutex_);
        tasks_.push_back(std::move(task));
        ++posts_;
    }
    posted_.notify_all();
    wake_.signal();
}

bool TestLoop::on_loop_thread() const {
    return std::this_thread::get_id() == thread_.get_id();
}

util::Registration TestLoop::every(util::Nanoseconds period, std::function<void()> tick) {
    auto timer = std::make_shared<Timer>(Timer{period, clock_.now() + period, std::move(tick)});
    timers_.push_back(timer);
    return util::Registration([this, timer] { timers_.remove(timer); });
}

util::Registration TestLoop::watch_fd(BorrowedFd fd, FdEvent event, std::function<void()> ready) {
    auto watch = std::make_shared<Watch>(Watch{fd.raw(), event, std::move(ready)});
    watches_.push_back(watch);
    return util::Registration([this, watch] { watches_.remove(watch); });
}

void TestLoop::run(const std::function<void()>& call) {
    std::promise<void> done;
    post([&] {
        call();
        done.set_value();
    });
    done.get_future().wait();
}

bool TestLoop::wait_for(const std::function<bool()>& condition) {
    constexpr auto kLimit = std::chrono::seconds(60);  // only reached by a broken test
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    for (;;) {
        bool holds = false;
        run([&] { holds = condition(); });
        if (holds) return true;
        if (std::chrono::steady_clock::now() > deadline) return false;
        // Until the loop has something to do. What does not go through it is looked for again.
        constexpr auto kPeriod = std::chrono::milliseconds(1);
        std::unique_lock lock(mutex_);
        posted_.wait_for(lock, kPeriod, [this, before = posts_] { return posts_ != before; });
    }
}

void TestLoop::tick() {
    run([this] { run_timers(); });
}

void TestLoop::run_timers() {
    const auto timers = timers_;
    for (const auto& timer : timers) {
        if (clock_.now() >= timer->next) {
            timer->next = clock_.now() + timer->period;
            timer->tick();
        }
    }
}

void TestLoop::loop() {
    for (;;) {
        std::deque<Task> tasks;
        {
            const std::lock_guard lock(mutex_);
            tasks.swap(tasks_);
            if (tasks.empty() && closing_) return;
        }
        for (Task& task : tasks) task();
        run_timers();
        std::vector<pollfd> fds{{wake_.fd().raw(), POLLIN, 0}};
        const std::vector<std::shared_ptr<Watch>> watches(watches_.begin(), watches_.end());
        for (const auto& watch : watches) {
            fds.push_back({watch->fd,
                           static_cast<short>(watch->event == FdEvent::Readable ? POLLIN : POLLOUT),
                           0});
        }
        constexpr int kTimerResolutionMs = 10;
        int timeout_ms = timers_.empty() ? -1 : kTimerResolutionMs;
        // The signal of the closing may have been consumed together with that of a task.
        if (!tasks.empty()) timeout_ms = 0;
        ::poll(fds.data(), fds.size(), timeout_ms);
        wake_.consume();
        for (size_t i = 0; i < watches.size(); ++i) {
            if (fds[i + 1].revents != 0) watches[i]->ready();
        }
    }
}

}  // namespace ferry::test
