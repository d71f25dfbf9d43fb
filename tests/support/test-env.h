// SPDX-License-Identifier: BSD-2-Clause
// An Env for tests: a fake clock, messages kept, tracing off.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "tests/support/fake-clock.h"
#include "trace-points.h"
#include "util/env.h"

namespace ferry::test {

class KeepingLogger final : public util::Logger {
 public:
    void log(util::LogLevel level, std::string_view message) override {
        const std::lock_guard lock(mutex_);
        lines_.emplace_back(level, message);
    }
    std::vector<std::pair<util::LogLevel, std::string>> lines() const {
        const std::lock_guard lock(mutex_);
        return lines_;
    }

 private:
    mutable std::mutex mutex_;
    std::vector<std::pair<util::LogLevel, std::string>> lines_;
};

struct TestEnv {
    FakeClock clock;
    KeepingLogger log;
    util::Tracer trace{trace::kEventNames, clock};
    util::Timeline timeline{clock};
    util::ActivityBoard activity{clock};
    util::Env env{clock, log, trace, timeline, activity};
};

}  // namespace ferry::test
