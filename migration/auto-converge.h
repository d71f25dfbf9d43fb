// SPDX-License-Identifier: BSD-2-Clause
// Auto-converge: a guest that writes memory faster than it can be sent gets less CPU time.
#pragma once

#include <cstdint>

#include "migration/capabilities.h"
#include "migration/session.h"
#include "util/clock.h"

namespace ferry::migration {

// The rule alone. Percent of their time for which the CPUs sleep; 0: none.
class ThrottleRule {
 public:
    // What was dirtied and what was sent since the last call. Returns the percentage from now on.
    unsigned after_period(uint64_t dirtied_bytes, uint64_t sent_bytes, const Parameters& limits);
    unsigned percent() const { return percent_; }

 private:
    // One busy period may be a coincidence.
    static constexpr unsigned kBusyPeriods = 2;

    unsigned busy_periods_ = 0;
    unsigned percent_ = 0;
};

// Applies the rule to one outgoing migration; the CPUs get their time back at the end of it.
// Migration thread.
class AutoConverge {
 public:
    explicit AutoConverge(SessionContext& vm) : vm_(vm) {}
    ~AutoConverge() { stop(); }
    AutoConverge(const AutoConverge&) = delete;
    AutoConverge& operator=(const AutoConverge&) = delete;

    // From now on periods count.
    void begin(uint64_t sent_bytes);
    // After a dirty sync or without one; `sent_bytes` since the beginning of the stream.
    Result<> update(uint64_t sent_bytes);
    // The VM stops, or stays: full speed again.
    void stop();

 private:
    Result<> throttle(unsigned percent);

    // Shorter ones say too little.
    static constexpr util::Nanoseconds kPeriod = std::chrono::seconds(1);

    SessionContext& vm_;
    ThrottleRule rule_;
    util::Nanoseconds period_begin_{};
    uint64_t syncs_ = 0;
    uint64_t dirtied_ = 0;
    uint64_t sent_ = 0;
};

}  // namespace ferry::migration
