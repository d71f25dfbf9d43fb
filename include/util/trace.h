// SPDX-License-Identifier: BSD-2-Clause
// The back end of trace points. Each folder lists its events in `trace-events`; the build generates
// one typed inline function per event (trace-points.h), which costs one load and one branch while
// the event is off. See docs/devel/tracing.rst.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "util/clock.h"
#include "util/result.h"

namespace ferry::util {

// The names of all trace points of the library.
std::span<const std::string_view> trace_event_names();

// Thread-safe. One per process or per VM, as the embedder likes.
class Tracer {
 public:
    // All events of the library, all off.
    explicit Tracer(const Clock& clock) : Tracer(trace_event_names(), clock) {}
    // `event_names` is the generated table and must outlive the tracer.
    Tracer(std::span<const std::string_view> event_names, const Clock& clock);
    ~Tracer();
    Tracer(const Tracer&) = delete;
    Tracer& operator=(const Tracer&) = delete;

    bool enabled(size_t event) const { return enabled_[event].load(std::memory_order_relaxed); }
    // Turns on all events matching a glob ("vfio_*"). InvalidArgument when none matches.
    Result<> enable(std::string_view pattern);
    // Lines go to stderr until a file is set (created or truncated).
    Result<> set_file(const std::string& path);
    // "seconds.nanoseconds name arguments"
    void emit(std::string_view name, const std::string& arguments) const;

 private:
    std::span<const std::string_view> names_;
    const Clock& clock_;
    std::unique_ptr<std::atomic<bool>[]> enabled_;
    mutable std::mutex mutex_;  // serialises lines
    std::FILE* file_ = nullptr;
};

}  // namespace ferry::util
