// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/fake-clock.h"

namespace ferry::test {

void FakeClock::wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                           util::Nanoseconds deadline) {
    Waiter waiter{&cv, lock.mutex()};
    {
        const std::lock_guard guard(mutex_);
        if (now_ >= deadline) return;
        waiters_.push_back(&waiter);
    }
    cv.wait(lock);
    lock.unlock();  // a visitor may be waiting for it
    {
        std::unique_lock guard(mutex_);
        left_.wait(guard, [&] { return waiter.visitors == 0; });
        std::erase(waiters_, &waiter);
    }
    lock.lock();
}

void FakeClock::advance(util::Nanoseconds by) {
    std::vector<Waiter*> waiters;
    {
        const std::lock_guard guard(mutex_);
        now_ += by;
        waiters = waiters_;
        for (Waiter* waiter : waiters) ++waiter->visitors;
    }
    for (Waiter* waiter : waiters) {
        const std::lock_guard sleeping(*waiter->mutex);  // so that no wait begins in between
        waiter->cv->notify_all();
    }
    {
        const std::lock_guard guard(mutex_);
        for (Waiter* waiter : waiters) --waiter->visitors;
    }
    left_.notify_all();
}

}  // namespace ferry::test
