// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/dirty-rate.h"

#include <algorithm>
#include <utility>

#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

}  // namespace

DirtyRate::DirtyRate(const Parts& parts, util::Worker& worker) : parts_(parts), worker_(worker) {}

bool DirtyRate::offers(DirtyRateMode mode) const {
    switch (mode) {
        case DirtyRateMode::PageSampling: return true;
        case DirtyRateMode::DirtyBitmap: return parts_.log == Parts::Log::Bitmap;
        case DirtyRateMode::DirtyRing: return parts_.log == Parts::Log::Ring;
    }
    std::unreachable();
}

Result<std::unique_ptr<DirtyRateProbe>> DirtyRate::make_probe(const DirtyRateRequest& request) {
    const util::Clock& clock = parts_.env.clock;
    switch (request.mode) {
        case DirtyRateMode::PageSampling:
            return make_sampling_probe(clock, parts_.memory, request.pages_per_gib);
        case DirtyRateMode::DirtyBitmap:
        case DirtyRateMode::DirtyRing:
            return make_log_probe(clock, parts_.memory, parts_.cpu_writes);
    }
    std::unreachable();
}

Result<> DirtyRate::start(DirtyRateRequest request) {
    if (state_.status == Status::Measuring) {
        return make_error(ErrorKind::InvalidState, "the dirty rate is already being measured.");
    }
    MIG_TRY(auto made, make_probe(request));
    using std::chrono::duration_cast;
    const auto now = duration_cast<std::chrono::seconds>(parts_.env.clock.now());
    state_ = {Status::Measuring, request, now, 0};
    const Probe probe = std::move(made);
    worker_.post([this, weak = std::weak_ptr(alive_), &loop = parts_.loop, probe] {
        auto begun = probe->begin();
        loop.post([this, weak, probe, begun = std::move(begun)]() mutable {
            if (!weak.expired()) begun_looking(probe, std::move(begun));
        });
    });
    return {};
}

void DirtyRate::begun_looking(const Probe& probe, Result<> begun) {
    if (!begun) {
        parts_.env.log.log(
            util::LogLevel::Warning,
            fmt::format("measuring the dirty rate failed: {}", begun.error().message()));
        state_.status = Status::Unstarted;
        return;
    }
    timer_ = parts_.loop.every(state_.request.time, [this, probe] {
        const Probe kept = probe;  // the closure goes with the timer
        timer_.reset();
        wait_is_over(kept);
    });
}

void DirtyRate::wait_is_over(const Probe& probe) {
    worker_.post([this, weak = std::weak_ptr(alive_), &loop = parts_.loop, probe] {
        const DirtyRateProbe::Found found = probe->finish();
        loop.post([this, weak, found] {
            if (!weak.expired()) measured(found);
        });
    });
}

void DirtyRate::measured(const DirtyRateProbe::Found& found) {
    const std::chrono::duration<double> took = found.took;
    const double mib = static_cast<double>(found.bytes) / static_cast<double>(kMiB);
    state_.mib_per_s = static_cast<uint64_t>(mib / std::max(took.count(), 0.001));
    state_.status = Status::Measured;
}

}  // namespace ferry::vmm
