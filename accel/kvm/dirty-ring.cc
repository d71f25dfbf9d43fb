// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/dirty-ring.h"

#include <atomic>
#include <span>

#include "util/try.h"

namespace ferry::kvm {

namespace {

// Bits 16 to 31 of an entry's slot are the address space, of which there is one here.
constexpr uint32_t kSlotBits = 16;

std::span<kvm_dirty_gfn> entries_of(const util::MappedRegion& memory) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the kernel maps it
    return {reinterpret_cast<kvm_dirty_gfn*>(memory.bytes().data()),
            memory.bytes().size() / sizeof(kvm_dirty_gfn)};
}

}  // namespace

Result<> enable_dirty_rings(KernelCalls& calls, BorrowedFd vm, const Capabilities& host) {
    kvm_enable_cap enable{};
    enable.cap = static_cast<uint32_t>(host.dirty_ring);
    enable.args[0] = DirtyRings::bytes_of(host.dirty_ring_entries);
    MIG_CHECK(calls.set(vm, KVM_ENABLE_CAP, &enable, "ioctl(KVM_ENABLE_CAP, DIRTY_LOG_RING)"),
              "rings of {} entries", host.dirty_ring_entries);
    return {};
}

void DirtyRings::watch(const std::vector<MemorySlot>& slots) {
    const std::lock_guard lock(mutex_);
    dirty_.clear();
    for (const MemorySlot& slot : slots) dirty_.emplace_back(slot.pages());
}

Result<> DirtyRings::add(BorrowedFd vcpu) {
    MIG_TRY(auto memory,
            util::MappedRegion::map(vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * system::kPageSize,
                                    bytes_of(entries_), "dirty ring of a CPU"));
    const std::lock_guard lock(mutex_);
    rings_.push_back({.memory = std::move(memory)});
    return {};
}

void DirtyRings::note(uint32_t slot, uint64_t page) {
    if (slot >= dirty_.size() || page >= dirty_[slot].size()) return;
    dirty_[slot].set(page);
}

// The kernel fills an entry and then sets its flag; it takes entries back in their order, up to the
// first that was not given back.
uint32_t DirtyRings::collect(Ring& ring) {
    const auto entries = entries_of(ring.memory);
    uint32_t taken = 0;
    for (; taken < entries_; ++taken) {
        kvm_dirty_gfn& entry = entries[ring.next];
        const std::atomic_ref flags(entry.flags);
        if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_DIRTY) == 0) break;
        note(entry.slot & ((uint32_t{1} << kSlotBits) - 1), entry.offset);
        flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
        ring.next = (ring.next + 1) % entries_;
    }
    return taken;
}

// Protects the pages again. From here on a write to one of them is a new entry, so whoever reads
// them afterwards misses none.
Result<> DirtyRings::give_back(uint32_t entries) {
    owed_ += entries;
    if (owed_ == 0) return {};
    auto done = calls_.ioctl_value(vm_, KVM_RESET_DIRTY_RINGS, 0, "ioctl(KVM_RESET_DIRTY_RINGS)");
    if (!done) return std::move(done).error();
    owed_ = 0;
    return {};
}

Result<> DirtyRings::harvest(unsigned vcpu) {
    const std::lock_guard lock(mutex_);
    return give_back(collect(rings_.at(vcpu)));
}

Result<> DirtyRings::harvest_all() {
    const std::lock_guard lock(mutex_);
    uint32_t entries = 0;
    for (Ring& ring : rings_) entries += collect(ring);
    return give_back(entries);
}

void DirtyRings::take(size_t slot, util::Bitmap& dirty) {
    const std::lock_guard lock(mutex_);
    dirty.or_with(dirty_.at(slot));
    dirty_[slot].clear_all();
}

void DirtyRings::forget() {
    const std::lock_guard lock(mutex_);
    for (util::Bitmap& dirty : dirty_) dirty.clear_all();
}

Result<> DirtyRingLog::dirty_log_start() {
    warned_ = false;
    // What an earlier log left behind.
    MIG_CHECK(rings_.harvest_all(), "starting KVM's dirty ring");
    rings_.forget();
    for (const MemorySlot& slot : slots_) {
        auto started = set_slot(calls_, vm_, slot, KVM_MEM_LOG_DIRTY_PAGES);
        if (!started) {
            dirty_log_stop();
            return std::move(started).error().context("starting KVM's dirty ring");
        }
    }
    return {};
}

void DirtyRingLog::dirty_log_stop() {
    for (const MemorySlot& slot : slots_) {
        // A log that goes on costs the guest time and is otherwise harmless.
        if (auto stopped = set_slot(calls_, vm_, slot, 0); !stopped) warn_once(stopped.error());
    }
}

void DirtyRingLog::dirty_log_sync(system::SyncPhase, system::DirtySink& sink) {
    if (auto harvested = rings_.harvest_all(); !harvested) {
        warn_once(harvested.error());
        for (const MemorySlot& slot : slots_) sink.mark_dirty(slot.gpa, slot.host.size());
        return;
    }
    for (const MemorySlot& slot : slots_) {
        util::Bitmap dirty(slot.pages());
        rings_.take(slot.id, dirty);
        if (!dirty.none()) sink.mark_dirty_pages(slot.gpa, system::kPageSize, dirty);
    }
}

void DirtyRingLog::warn_once(const Error& error) {
    if (warned_) return;
    warned_ = true;
    log_.log(util::LogLevel::Warning,
             fmt::format("dirty ring of KVM: {}; what it covers counts as dirty", error.message()));
}

}  // namespace ferry::kvm
