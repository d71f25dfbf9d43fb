// SPDX-License-Identifier: BSD-2-Clause
#include "migration/session.h"

namespace ferry::migration {

void AttemptStats::reset() {
    transferred_bytes = 0;
    downtime_bytes = 0;
    multifd_bytes = 0;
    throughput_bytes_per_s = 0;
    expected_downtime_ms = 0;
    cpu_throttle_percentage = 0;
    begin_ns = 0;
    setup_end_ns = 0;
    pause_begin_ns = 0;
    end_ns = 0;
}

void Answer::give(Result<> value) {
    const std::lock_guard lock(mutex_);
    value_ = std::move(value);
    given_.notify_all();
}

Result<> Answer::wait(util::Clock& clock, util::Nanoseconds period,
                      const std::function<void()>& each_period) {
    std::unique_lock lock(mutex_);
    while (!value_) {
        const auto deadline = clock.now() + period;
        clock.wait_until(given_, lock, deadline);
        if (!value_ && clock.now() >= deadline) {
            lock.unlock();
            each_period();
            lock.lock();
        }
    }
    return std::move(*value_);
}

Result<> Answer::wait() {
    std::unique_lock lock(mutex_);
    given_.wait(lock, [this] { return value_.has_value(); });
    return std::move(*value_);
}

Result<> await_on_loop(system::MainLoop& loop, std::function<void(system::Done)> request) {
    auto answer = std::make_shared<Answer>();
    loop.post([answer, request = std::move(request)] {
        request([answer](Result<> result) { answer->give(std::move(result)); });
    });
    return answer->wait();
}

}  // namespace ferry::migration
