// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/vm.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::kvm {

Result<std::unique_ptr<KvmVm>> KvmVm::create(const Kvm& kvm, system::GuestMemory& memory) {
    MIG_TRY(UniqueFd fd, kvm.create_vm(), "KVM");
    std::unique_ptr<KvmVm> vm(new KvmVm(kvm, memory, std::move(fd)));
    MIG_CHECK(vm->create_chips(), "KVM");
    MIG_CHECK(vm->prepare_dirty_log(), "KVM");
    MIG_CHECK(vm->create_slots(), "KVM");
    MIG_TRY(vm->power_on_, read_vm_state(kvm, vm->fd()), "KVM");
    vm->power_on_.clock_ns.reset();
    return vm;
}

Result<> KvmVm::create_chips() {
    MIG_CHECK(set_tss_address(calls(), fd()));
    MIG_CHECK(calls().ioctl_value(fd(), KVM_CREATE_IRQCHIP, 0, "ioctl(KVM_CREATE_IRQCHIP)"));
    if (kvm_.capabilities().pit) {
        kvm_pit_config config{};
        config.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 is the PIT's as well
        MIG_CHECK(calls().set(fd(), KVM_CREATE_PIT2, &config, "ioctl(KVM_CREATE_PIT2)"));
    }
    interrupts_ = std::make_unique<Interrupts>(calls(), kvm_.capabilities(), fd());
    return interrupts_->install_routes();
}

// Before the first slot, so that all of its life is of one mode.
Result<> KvmVm::prepare_dirty_log() {
    const Capabilities& host = kvm_.capabilities();
    if (host.dirty_log == DirtyLogMode::Ring) {
        MIG_CHECK(enable_dirty_rings(calls(), fd(), host));
        dirty_rings_ = std::make_unique<DirtyRings>(calls(), fd(), host.dirty_ring_entries);
        return {};
    }
    if (dirty_log_mode() != DirtyLogMode::Manual) return {};
    kvm_enable_cap enable{};
    enable.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    enable.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
    return calls().set(fd(), KVM_ENABLE_CAP, &enable,
                       "ioctl(KVM_ENABLE_CAP, MANUAL_DIRTY_LOG_PROTECT2)");
}

Result<> KvmVm::create_slots() {
    MIG_TRY(ram_slots_, slots_for(memory_.mappings(), kvm_.capabilities().max_slots));
    for (const MemorySlot& slot : ram_slots_) MIG_CHECK(set_slot(calls(), fd(), slot, 0));
    if (dirty_rings_) dirty_rings_->watch(ram_slots_);
    return {};
}

Result<uint32_t> KvmVm::take_slot_id() {
    const std::lock_guard lock(mutex_);
    const auto free = std::ranges::find(device_slots_, false);
    const auto index = static_cast<size_t>(free - device_slots_.begin());
    if (ram_slots_.size() + index >= kvm_.capabilities().max_slots) {
        return make_error(ErrorKind::LimitExceeded, "all {} memory slots of KVM are in use",
                          kvm_.capabilities().max_slots);
    }
    if (free == device_slots_.end()) {
        device_slots_.push_back(true);
    } else {
        *free = true;
    }
    return static_cast<uint32_t>(ram_slots_.size() + index);
}

Result<util::Registration> KvmVm::map_device_memory(system::Gpa gpa, MutBytes host) {
    MIG_TRY(const uint32_t id, take_slot_id());
    const auto give_back = [this, id] {
        const std::lock_guard lock(mutex_);
        device_slots_[id - ram_slots_.size()] = false;
    };
    const MemorySlot slot{.id = id, .gpa = gpa, .host = host};
    if (auto mapped = set_slot(calls(), fd(), slot, 0); !mapped) {
        give_back();
        return std::move(mapped).error();
    }
    return util::Registration([this, slot, give_back] {
        // Where the kernel keeps the slot, its number must not be used again.
        if (remove_slot(calls(), fd(), slot)) give_back();
    });
}

Result<VmState> KvmVm::state() const {
    MIG_TRY(VmState state, read_vm_state(kvm_, fd()));
    const std::lock_guard lock(mutex_);
    if (frozen_clock_ns_) state.clock_ns = frozen_clock_ns_;
    return state;
}

Result<> KvmVm::set_state(const VmState& state) {
    MIG_CHECK(write_vm_state(kvm_, fd(), state));
    if (!state.clock_ns) return {};
    const std::lock_guard lock(mutex_);
    frozen_clock_ns_ = state.clock_ns;
    return {};
}

Result<> KvmVm::reset() {
    return write_vm_state(kvm_, fd(), power_on_);
}

Result<> KvmVm::freeze_clock() {
    if (!kvm_.capabilities().clock) return {};
    MIG_TRY(const uint64_t now, read_clock_ns(kvm_, fd()));
    const std::lock_guard lock(mutex_);
    frozen_clock_ns_ = now;
    return {};
}

Result<> KvmVm::thaw_clock() {
    const std::lock_guard lock(mutex_);
    const auto frozen = std::exchange(frozen_clock_ns_, std::nullopt);
    if (!frozen) return {};
    return write_clock_ns(kvm_, fd(), *frozen);
}

}  // namespace ferry::kvm
