// SPDX-License-Identifier: BSD-2-Clause
#include "migration/rate.h"

#include <algorithm>

namespace ferry::migration {

namespace {
// Less than this mostly measures the socket's buffer.
constexpr uint64_t kMinSample = 8 * 1024 * 1024;
// What a line is taken for at most until a sample says better: 1 Gbit/s.
constexpr uint64_t kMaxGuess = 125'000'000;
// Less than this fits into a buffer: how long it took is the scheduler's doing.
constexpr uint64_t kMinGuess = 256 * 1024;
// A round of less found nothing to send. Its section frames would measure the system call.
constexpr uint64_t kMinRound = 4096;
constexpr double kNanosPerSecond = 1e9;
}  // namespace

Result<> TimedSink::write_all(std::span<const ConstBytes> parts) {
    const auto begin = clock_.now();
    auto written = sink_.write_all(parts);
    writing_ += clock_.now() - begin;
    return written;
}

void RateControl::begin_round(util::Nanoseconds now, util::Nanoseconds writing, uint64_t position) {
    round_begin_ = now;
    round_writing_ = writing;
    round_position_ = position;
}

void RateControl::end_round(util::Nanoseconds writing, uint64_t position) {
    const uint64_t sent = position - round_position_;
    if (sent >= kMinRound) {
        busy_ += writing - round_writing_;
        busy_bytes_ += sent;
    }
    const auto measured = [this] {
        const auto busy = std::max(busy_, util::Nanoseconds(1));  // too fast for the clock
        return static_cast<uint64_t>(static_cast<double>(busy_bytes_) * kNanosPerSecond /
                                     static_cast<double>(busy.count()));
    };
    if (busy_bytes_ >= kMinSample || busy_ >= kWindow) {
        bandwidth_ = measured();
        guessing_ = false;
        busy_ = {};
        busy_bytes_ = 0;
    } else if (guessing_) {
        bandwidth_ = busy_bytes_ < kMinGuess ? kMaxGuess : std::min(measured(), kMaxGuess);
    }
}

bool RateControl::round_is_full(util::Nanoseconds now, uint64_t position,
                                uint64_t max_bandwidth) const {
    if (now - round_begin_ >= kWindow / 2) return true;
    return max_bandwidth != 0 && position - window_position_ >= max_bandwidth / 10;
}

bool RateControl::window_is_full(util::Nanoseconds now, uint64_t position, uint64_t max_bandwidth) {
    if (now >= window_end()) {
        const uint64_t over = static_cast<uint64_t>((now - window_begin_) / kWindow);
        uint64_t allowed = position;
        uint64_t earned = 0;
        if (max_bandwidth != 0 && !__builtin_mul_overflow(over, max_bandwidth / 10, &earned) &&
            earned < position - window_position_) {
            allowed = window_position_ + earned;
        }
        window_begin_ += over * kWindow;
        window_position_ = allowed;
    }
    return max_bandwidth != 0 && position - window_position_ >= max_bandwidth / 10;
}

uint64_t Throughput::measure(util::Nanoseconds now, uint64_t position) {
    const util::Nanoseconds passed = now - begin_;
    if (passed >= kPeriod) {
        bytes_per_s_ = static_cast<uint64_t>(static_cast<double>(position - position_) *
                                             kNanosPerSecond / static_cast<double>(passed.count()));
        begin_ = now;
        position_ = position;
    }
    return bytes_per_s_;
}

uint64_t switchover_threshold(uint64_t bandwidth, uint64_t downtime_limit_ms) {
    const double bytes =
        static_cast<double>(bandwidth) * static_cast<double>(downtime_limit_ms) / 1000.0;
    return bytes >= 9.2e18 ? UINT64_MAX : static_cast<uint64_t>(bytes);
}

}  // namespace ferry::migration
