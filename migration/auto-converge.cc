// SPDX-License-Identifier: BSD-2-Clause
#include "migration/auto-converge.h"

#include <algorithm>

#include "system/memory.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr unsigned kFull = 100;

// How much more sleep would make the guest dirty just what may be dirtied.
unsigned missing_percent(unsigned percent, double allowed_share) {
    const double awake = kFull - percent;
    return static_cast<unsigned>(std::max(awake * (1.0 - allowed_share), 1.0));
}

}  // namespace

unsigned ThrottleRule::after_period(uint64_t dirtied_bytes, uint64_t sent_bytes,
                                    const Parameters& limits) {
    const double allowed = static_cast<double>(sent_bytes) *
                           static_cast<double>(limits.throttle_trigger_threshold) / kFull;
    const auto dirtied = static_cast<double>(dirtied_bytes);
    if (dirtied <= allowed || ++busy_periods_ < kBusyPeriods) return percent_;
    busy_periods_ = 0;
    const auto ceiling = static_cast<unsigned>(limits.max_cpu_throttle);
    if (percent_ == 0) {
        percent_ = static_cast<unsigned>(limits.cpu_throttle_initial);
    } else {
        auto more = static_cast<unsigned>(limits.cpu_throttle_increment);
        if (limits.cpu_throttle_tailslow != 0) {
            more = std::min(more, missing_percent(percent_, allowed / dirtied));
        }
        percent_ += more;
    }
    percent_ = std::min(percent_, ceiling);
    return percent_;
}

void AutoConverge::begin(uint64_t sent_bytes) {
    period_begin_ = vm_.env.clock.now();
    syncs_ = vm_.ram.dirty_sync_count;
    dirtied_ = vm_.ram.dirtied_pages;
    sent_ = sent_bytes;
}

Result<> AutoConverge::update(uint64_t sent_bytes) {
    // What was dirtied is known after a sync only.
    if (vm_.ram.dirty_sync_count == syncs_) return {};
    if (vm_.env.clock.now() - period_begin_ < kPeriod) return {};
    const unsigned before = rule_.percent();
    const unsigned percent =
        rule_.after_period((vm_.ram.dirtied_pages - dirtied_) * system::kPageSize,
                           sent_bytes - sent_, vm_.parameters());
    begin(sent_bytes);
    if (percent == before) return {};
    trace::migration_throttle(vm_.env.trace, percent);
    MIG_CHECK(throttle(percent), "auto-converge");
    vm_.stats.cpu_throttle_percentage = percent;
    return {};
}

void AutoConverge::stop() {
    if (vm_.stats.cpu_throttle_percentage == 0) return;
    vm_.stats.cpu_throttle_percentage = 0;
    trace::migration_throttle(vm_.env.trace, 0);
    if (auto stopped = throttle(0); !stopped) {
        vm_.env.log.log(util::LogLevel::Error, stopped.error().message());
    }
}

Result<> AutoConverge::throttle(unsigned percent) {
    return system::run_on_loop(vm_.loop,
                               [this, percent] { return vm_.runstate.set_throttle(percent); });
}

}  // namespace ferry::migration
