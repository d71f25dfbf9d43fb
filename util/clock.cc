// SPDX-License-Identifier: BSD-2-Clause
#include "util/clock.h"

namespace ferry::util {

Nanoseconds SystemClock::now() const {
    return std::chrono::steady_clock::now().time_since_epoch();
}

void SystemClock::wait_until(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                             Nanoseconds deadline) {
    cv.wait_until(lock, std::chrono::steady_clock::time_point(deadline));
}

}  // namespace ferry::util
