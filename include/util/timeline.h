// SPDX-License-Identifier: BSD-2-Clause
// What happened when during one migration attempt, as spans: the raw material of "why was the pause
// this long". Recorded on both sides; shown by query-migrate (member x-timeline) and ferryctl.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "util/clock.h"

namespace ferry::util {

struct Span {
    std::string who;   // "vm", "ram", or a device's name
    std::string step;  // "quiesce", "stop", "save", "load", "validate", "start", ...
    Nanoseconds begin{};
    Nanoseconds end{};
    uint64_t bytes = 0;  // moved in this span, 0 where that means nothing
};

// Thread-safe. Holds at most kMaxSpans; later ones are counted only.
class Timeline {
 public:
    static constexpr size_t kMaxSpans = 4096;

    explicit Timeline(const Clock& clock) : clock_(clock) {}

    void clear();
    void add(Span span);
    std::vector<Span> snapshot() const;
    Nanoseconds now() const { return clock_.now(); }

 private:
    const Clock& clock_;
    mutable std::mutex mutex_;
    std::vector<Span> spans_;
    size_t dropped_ = 0;
};

// Records one span from construction to destruction.
class ScopedSpan {
 public:
    ScopedSpan(Timeline& timeline, std::string_view who, std::string_view step)
        : timeline_(timeline), span_{std::string(who), std::string(step), timeline.now(), {}, 0} {}
    ~ScopedSpan() {
        span_.end = timeline_.now();
        timeline_.add(std::move(span_));
    }
    ScopedSpan(const ScopedSpan&) = delete;
    ScopedSpan& operator=(const ScopedSpan&) = delete;
    void add_bytes(uint64_t bytes) { span_.bytes += bytes; }

 private:
    Timeline& timeline_;
    Span span_;
};

}  // namespace ferry::util
