// SPDX-License-Identifier: BSD-2-Clause
// How fast the stream may go, how fast it goes, and what that means for the pause.
#pragma once

#include <cstdint>

#include "migration/channel.h"
#include "util/clock.h"

namespace ferry::migration {

// Migration thread only. Bytes are stream positions.
class RateControl {
 public:
    // max-bandwidth is dealt out in windows of this length, and a round takes no longer than half.
    static constexpr util::Nanoseconds kWindow = std::chrono::milliseconds(100);

    explicit RateControl(util::Nanoseconds now) : window_begin_(now), round_begin_(now) {}

    // `writing`: how long the channel has been written to since the session began. The rest of a
    // round is looking for pages, long where all are zero, and says nothing about the line.
    void begin_round(util::Nanoseconds now, util::Nanoseconds writing, uint64_t position);
    void end_round(util::Nanoseconds writing, uint64_t position);
    bool round_is_full(util::Nanoseconds now, uint64_t position,
                       uint64_t max_bandwidth_bytes_per_s) const;
    // Whether this window's bytes are used up; new windows begin when the time of the last one is
    // over. What was sent beyond a window's share is taken from the next ones.
    bool window_is_full(util::Nanoseconds now, uint64_t position,
                        uint64_t max_bandwidth_bytes_per_s);
    util::Nanoseconds window_end() const { return window_begin_ + kWindow; }

    // Bytes per second while sending, a guess until enough was sent to know; 0 before the first
    // round.
    uint64_t bandwidth() const { return bandwidth_; }

 private:
    util::Nanoseconds window_begin_;
    uint64_t window_position_ = 0;
    util::Nanoseconds round_begin_;
    util::Nanoseconds round_writing_{};
    uint64_t round_position_ = 0;
    util::Nanoseconds busy_{};
    uint64_t busy_bytes_ = 0;
    uint64_t bandwidth_ = 0;
    bool guessing_ = true;
};

// What really went out: bytes per second in the last period that is over.
class Throughput {
 public:
    static constexpr util::Nanoseconds kPeriod = std::chrono::milliseconds(100);

    explicit Throughput(util::Nanoseconds now) : begin_(now) {}
    // 0 in the first period.
    uint64_t measure(util::Nanoseconds now, uint64_t position);

 private:
    util::Nanoseconds begin_;
    uint64_t position_ = 0;
    uint64_t bytes_per_s_ = 0;
};

// Hands everything on, and knows how long that took. One thread at a time.
class TimedSink final : public ByteSink {
 public:
    TimedSink(ByteSink& sink, util::Clock& clock) : sink_(sink), clock_(clock) {}
    Result<> write_all(std::span<const ConstBytes> parts) override;
    util::Nanoseconds writing() const { return writing_; }

 private:
    ByteSink& sink_;
    util::Clock& clock_;
    util::Nanoseconds writing_{};
};

// Bytes that fit into a pause of `downtime_limit_ms`.
uint64_t switchover_threshold(uint64_t bandwidth_bytes_per_s, uint64_t downtime_limit_ms);

}  // namespace ferry::migration
