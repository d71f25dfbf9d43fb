// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/dirty-tracking.h"

#include <algorithm>
#include <latch>
#include <utility>

#include "hw/vfio/dma-log-ranges.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

using system::SyncPhase;

VfioDirtyTracker::Log* VfioDirtyTracker::log_for(const Device& device) {
    const IommuDirtyLog* shared = nullptr;
    std::unique_ptr<DmaTracker> tracker;
    switch (device.source) {
        case DirtySource::Nobody: return nullptr;
        case DirtySource::DeviceLog: tracker = device_log_tracker(device.label, device.io); break;
        case DirtySource::Iommu: {
            IommuDirtyLog& log = *device.io.iommu_dirty_log();
            const auto known = std::ranges::find(logs_, &log, &Log::iommu);
            if (known != logs_.end()) return &*known;
            shared = &log;
            tracker = iommu_tracker(device.label, log);
        }
    }
    return &logs_.emplace_back(
        Log{.tracker = std::move(tracker), .iommu = shared, .worker = &device.worker});
}

util::Registration VfioDirtyTracker::add(Device device) {
    Log* log = log_for(device);
    const auto at = members_.insert(members_.end(), Member{std::move(device), log});
    return util::Registration([this, at] { remove(at); });
}

void VfioDirtyTracker::remove(std::list<Member>::iterator member) {
    Log* log = member->log;
    members_.erase(member);
    if (log == nullptr) return;
    const auto another = std::ranges::find(members_, log, &Member::log);
    if (another != members_.end()) {
        log->worker = &another->device.worker;
    } else {
        logs_.remove_if([log](const Log& other) { return &other == log; });
    }
}

Result<> VfioDirtyTracker::start_log(Log& log) {
    log.failure_told = false;
    // A log that goes on from the last migration can't be started.
    if (log.stop_failed) stop_log(log);
    trace::vfio_dirty_log_start(env_.trace, log.tracker->label(), ranges_.size());
    auto started = log.worker->run([&] { return log.tracker->start(ranges_); });
    log.running = started.has_value();
    if (started) return {};
    return std::move(started).error().context(log.tracker->label());
}

Result<> VfioDirtyTracker::dirty_log_start() {
    ranges_ = dma_log_ranges(memory_);
    for (Log& log : logs_) {
        if (ranges_.empty()) break;
        auto started = start_log(log);
        if (started) continue;
        dirty_log_stop();
        return started;
    }
    set_space_tracking();
    return {};
}

void VfioDirtyTracker::dirty_log_stop() {
    for (Log& log : logs_) {
        if (std::exchange(log.running, false)) stop_log(log);
        log.pages = {};
    }
    for (const Member& member : members_) {
        if (member.device.space == nullptr) continue;
        member.device.space->set_tracking(DmaSpace::Tracking::Off);
    }
}

void VfioDirtyTracker::stop_log(Log& log) {
    trace::vfio_dirty_log_stop(env_.trace, log.tracker->label());
    const auto stopped = log.worker->run([&] { return log.tracker->stop(); });
    log.stop_failed = !stopped;
    if (stopped) return;
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("{}: stopping the log of its writes to guest memory: {}",
                             log.tracker->label(), stopped.error().message()));
}

// What is unmapped from now on is asked about first.
void VfioDirtyTracker::set_space_tracking() {
    std::map<DmaSpace*, DmaSpace::Tracking> spaces;
    for (const Member& member : members_) {
        if (member.device.space == nullptr) continue;
        auto& tracking =
            spaces.try_emplace(member.device.space, DmaSpace::Tracking::On).first->second;
        const bool tracked = member.log != nullptr && member.log->running;
        if (!tracked) tracking = DmaSpace::Tracking::Nowhere;
    }
    for (const auto& [space, tracking] : spaces) space->set_tracking(tracking);
}

// RAM came while the logs ran, outside of what devices were told to log: they begin anew. What was
// written in between, nobody knows.
void VfioDirtyTracker::follow_memory(SyncPhase phase, system::DirtySink& sink) {
    std::vector<DmaLogRange> now = dma_log_ranges(memory_);
    const bool running = std::ranges::any_of(
        logs_, [](const Log& log) { return log.running && !log.tracker->follows_mappings(); });
    if (!running || now == ranges_) return;
    ranges_ = std::move(now);
    for (Log& log : logs_) {
        if (log.tracker->follows_mappings() || !std::exchange(log.running, false)) continue;
        stop_log(log);
        if (phase == SyncPhase::Final) continue;
        if (auto started = start_log(log); !started) {
            env_.log.log(util::LogLevel::Warning,
                         fmt::format("memory was added, and the log of writes does not go on; all "
                                     "of it is sent again after the VM has stopped: {}",
                                     started.error().message()));
        }
    }
    for (const system::RamMapping& mapping : memory_.mappings()) {
        sink.mark_dirty(mapping.gpa, mapping.length);
    }
}

std::map<DmaSpace*, VfioDirtyTracker::Asked> VfioDirtyTracker::asked(SyncPhase phase) {
    std::map<DmaSpace*, Asked> all;
    for (const Member& member : members_) {
        const Device& device = member.device;
        if (phase == SyncPhase::Precopy && device.precopy == PrecopyQueries::No) continue;
        Asked& asked = all[device.space];
        if (member.log == nullptr || !member.log->running) {
            ++asked.untracked;
            continue;
        }
        ++asked.devices;
        if (std::ranges::find(asked.logs, member.log) == asked.logs.end()) {
            asked.logs.push_back(member.log);
        }
    }
    return all;
}

void VfioDirtyTracker::dirty_log_sync(SyncPhase phase, system::DirtySink& sink) {
    follow_memory(phase, sink);
    const auto all = asked(phase);
    size_t tracked = 0;
    size_t untracked = 0;
    for (const auto& [space, asked] : all) {
        tracked += asked.devices;
        untracked += asked.untracked;
    }
    trace::vfio_dirty_log_sync(env_.trace, phase == SyncPhase::Final ? "final" : "precopy", tracked,
                               untracked);
    for (const auto& [space, asked] : all) {
        if (space == nullptr) {
            for (const system::RamMapping& mapping : memory_.mappings()) {
                sync_area(asked, {mapping.gpa, mapping.gpa, mapping.length}, sink);
            }
            continue;
        }
        space->walk([&](const DmaSpace::Translation& one) {
            if (one.access == MapAccess::ReadOnly) return;
            sync_area(asked, {one.iova, one.gpa, one.length}, sink);
        });
    }
}

void VfioDirtyTracker::sync_area(const Asked& asked, Area area, system::DirtySink& sink) {
    // What the others know changes nothing: everything goes again in the last pass.
    if (asked.untracked > 0) return sink.mark_untracked(area.gpa, area.length);
    for (uint64_t done = 0; done < area.length; done += kMaxDirtyQueryBytes) {
        sync_piece(
            asked,
            {area.iova + done, area.gpa + done, std::min(kMaxDirtyQueryBytes, area.length - done)},
            sink);
    }
}

// All are asked at once: the last sync is part of the pause.
void VfioDirtyTracker::sync_piece(const Asked& asked, Area piece, system::DirtySink& sink) {
    const uint64_t pages = (piece.length + system::kPageSize - 1) / system::kPageSize;
    std::latch answered(static_cast<ptrdiff_t>(asked.logs.size()));
    for (Log* log : asked.logs) {
        if (log->pages.size() == pages) {
            log->pages.clear_all();
        } else {
            log->pages = util::Bitmap(pages);
        }
        log->worker->post([&answered, log, range = DmaLogRange{piece.iova, piece.length}] {
            log->result = log->tracker->query(range, log->pages);
            answered.count_down();
        });
    }
    answered.wait();
    for (Log* log : asked.logs) {
        if (log->result) {
            sink.mark_dirty_pages(piece.gpa, system::kPageSize, log->pages);
        } else {
            report_failed(*log, piece);
            sink.mark_untracked(piece.gpa, piece.length);
        }
    }
}

void VfioDirtyTracker::report_failed(Log& log, Area piece) {
    const std::string why = log.result.error().message();
    trace::vfio_dirty_log_report_failed(env_.trace, log.tracker->label(), piece.iova, piece.length,
                                        why);
    if (std::exchange(log.failure_told, true)) return;
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("{} can't tell what was written to guest memory; everything it can "
                             "reach is sent again after the VM has stopped: {}",
                             log.tracker->label(), why));
}

}  // namespace ferry::vfio
