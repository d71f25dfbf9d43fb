// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/dirty-log.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::kvm {

Result<> DirtyLog::dirty_log_start() {
    warned_ = false;
    if (mode_ == DirtyLogMode::None) return {};
    for (const MemorySlot& slot : slots_) {
        auto started = set_slot(calls_, vm_, slot, KVM_MEM_LOG_DIRTY_PAGES);
        if (!started) {
            dirty_log_stop();
            return std::move(started).error().context("starting KVM's dirty log");
        }
    }
    return {};
}

void DirtyLog::dirty_log_stop() {
    if (mode_ == DirtyLogMode::None) return;
    for (const MemorySlot& slot : slots_) {
        // A log that goes on costs the guest time and is otherwise harmless.
        if (auto stopped = set_slot(calls_, vm_, slot, 0); !stopped) warn_once(stopped.error());
    }
}

void DirtyLog::dirty_log_sync(system::SyncPhase, system::DirtySink& sink) {
    for (const MemorySlot& slot : slots_) {
        if (mode_ == DirtyLogMode::None) {
            sink.mark_untracked(slot.gpa, slot.host.size());
            continue;
        }
        util::Bitmap dirty(slot.pages());
        if (auto collected = collect(slot, dirty); !collected) {
            warn_once(collected.error());
            sink.mark_dirty(slot.gpa, slot.host.size());
        } else if (!dirty.none()) {
            sink.mark_dirty_pages(slot.gpa, system::kPageSize, dirty);
        }
    }
}

// In manual mode the pages are protected again before anybody reads them, so that a write after
// this is either in what is read later, or in the next log.
Result<> DirtyLog::collect(const MemorySlot& slot, util::Bitmap& dirty) {
    MIG_CHECK(get_dirty_log(calls_, vm_, slot, dirty));
    if (mode_ != DirtyLogMode::Manual) return {};
    const uint64_t pages = slot.pages();
    for (uint64_t next = dirty.find_set(0); next < pages;) {
        const uint64_t first = next - next % kClearAlignmentPages;
        const uint64_t count = std::min(kClearChunkPages, pages - first);
        MIG_CHECK(clear_dirty_log(calls_, vm_, slot, first, count, dirty));
        next = first + count < pages ? dirty.find_set(first + count) : pages;
    }
    return {};
}

void DirtyLog::warn_once(const Error& error) {
    if (warned_) return;
    warned_ = true;
    log_.log(util::LogLevel::Warning,
             fmt::format("dirty log of KVM: {}; what it covers counts as dirty", error.message()));
}

}  // namespace ferry::kvm
