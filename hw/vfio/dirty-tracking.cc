// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/dirty-tracking.h"

#include <algorithm>
#include <latch>
#include <utility>

#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

using system::SyncPhase;

namespace {

constexpr uint64_t k4GiB = uint64_t{1} << 32;
// One query; bounds the bitmap of each device to 2 MiB.
constexpr uint64_t kMaxQueryBytes = uint64_t{64} << 30;

// [first, last], empty until something was added.
struct Span {
    uint64_t first = UINT64_MAX;
    uint64_t last = 0;
    void add(uint64_t from, uint64_t to) {
        first = std::min(first, from);
        last = std::max(last, to);
    }
};

uint64_t page_floor(uint64_t address) {
    return address & ~(system::kPageSize - 1);
}

}  // namespace

std::vector<DmaLogRange> dma_log_ranges(const system::GuestMemory& memory) {
    Span low;
    Span high;
    for (const system::RamMapping& mapping : memory.mappings()) {
        const uint64_t first = page_floor(mapping.gpa);
        const uint64_t last = mapping.gpa + mapping.length - 1;
        (last < k4GiB ? low : high).add(first, last | (system::kPageSize - 1));
    }
    std::vector<DmaLogRange> ranges;
    for (const Span& span : {low, high}) {
        if (span.last != 0) ranges.push_back({span.first, span.last - span.first + 1});
    }
    return ranges;
}

util::Registration VfioDirtyTracker::add(Device device) {
    const auto at = members_.insert(members_.end(), Member{.device = std::move(device)});
    return util::Registration([this, at] { members_.erase(at); });
}

Result<> VfioDirtyTracker::dirty_log_start() {
    const std::vector<DmaLogRange> ranges = dma_log_ranges(memory_);
    for (Member& member : members_) {
        member.failure_told = false;
        const Device& device = member.device;
        if (device.source == DirtySource::Nobody || ranges.empty()) continue;
        // A log that goes on from the last migration can't be started.
        if (member.stop_failed) stop_log(member);
        trace::vfio_dirty_log_start(env_.trace, device.label, ranges.size());
        auto started = device.worker.run(
            [&] { return device.io.dma_logging_start(ranges, system::kPageSize); });
        if (!started) {
            dirty_log_stop();
            return std::move(started).error().context(
                fmt::format("device {}: starting the log of its writes to guest memory (the "
                            "property x-device-dirty-page-tracking=off does without it)",
                            device.label));
        }
        member.logging = true;
    }
    return {};
}

void VfioDirtyTracker::dirty_log_stop() {
    for (Member& member : members_) {
        if (std::exchange(member.logging, false)) stop_log(member);
    }
}

void VfioDirtyTracker::stop_log(Member& member) {
    const Device& device = member.device;
    trace::vfio_dirty_log_stop(env_.trace, device.label);
    const auto stopped = device.worker.run([&] { return device.io.dma_logging_stop(); });
    member.stop_failed = !stopped;
    if (stopped) return;
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("device {}: stopping the log of its writes to guest memory: {}",
                             device.label, stopped.error().message()));
}

void VfioDirtyTracker::dirty_log_sync(SyncPhase phase, system::DirtySink& sink) {
    std::vector<Member*> tracked;
    size_t untracked = 0;
    for (Member& member : members_) {
        if (phase == SyncPhase::Precopy && member.device.precopy == PrecopyQueries::No) continue;
        if (member.logging) {
            tracked.push_back(&member);
        } else {
            ++untracked;
        }
    }
    trace::vfio_dirty_log_sync(env_.trace, phase == SyncPhase::Final ? "final" : "precopy",
                               tracked.size(), untracked);
    for (const system::RamMapping& mapping : memory_.mappings()) {
        if (untracked > 0) {
            // What the others know changes nothing: everything goes again in the last pass.
            sink.mark_untracked(mapping.gpa, mapping.length);
            continue;
        }
        if (tracked.empty()) return;
        for (uint64_t done = 0; done < mapping.length; done += kMaxQueryBytes) {
            sync_range(tracked,
                       {mapping.gpa + done, std::min(kMaxQueryBytes, mapping.length - done)}, sink);
        }
    }
}

struct VfioDirtyTracker::Query {
    util::Bitmap pages;
    Result<> result;
};

// All devices are asked at once: the last sync is part of the pause.
void VfioDirtyTracker::sync_range(const std::vector<Member*>& members, DmaLogRange range,
                                  system::DirtySink& sink) {
    const uint64_t pages = (range.length + system::kPageSize - 1) / system::kPageSize;
    std::vector<Query> queries(members.size());
    std::latch answered(static_cast<ptrdiff_t>(members.size()));
    for (size_t i = 0; i < members.size(); ++i) {
        queries[i].pages = util::Bitmap(pages);
        members[i]->device.worker.post(
            [&answered, &query = queries[i], &device = members[i]->device, range] {
                query.result = device.io.dma_logging_report(range, system::kPageSize, query.pages);
                answered.count_down();
            });
    }
    answered.wait();
    for (size_t i = 0; i < members.size(); ++i) {
        if (queries[i].result) {
            sink.mark_dirty_pages(range.iova, system::kPageSize, queries[i].pages);
        } else {
            report_failed(*members[i], range, queries[i].result.error());
            sink.mark_untracked(range.iova, range.length);
        }
    }
}

void VfioDirtyTracker::report_failed(Member& member, DmaLogRange range, const Error& error) {
    trace::vfio_dirty_log_report_failed(env_.trace, member.device.label, range.iova, range.length,
                                        error.message());
    if (std::exchange(member.failure_told, true)) return;
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("device {} can't tell what it wrote to guest memory; everything it "
                             "can reach is sent again after the VM has stopped: {}",
                             member.device.label, error.message()));
}

}  // namespace ferry::vfio
