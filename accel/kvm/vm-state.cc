// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/vm-state.h"

#include "util/try.h"

namespace ferry::kvm {

namespace {

Result<> read_chip(const Kvm& kvm, BorrowedFd vm, uint32_t id, kvm_irqchip& chip) {
    chip.chip_id = id;
    return kvm.calls().get(vm, KVM_GET_IRQCHIP, &chip, "ioctl(KVM_GET_IRQCHIP)");
}

Result<> write_chip(const Kvm& kvm, BorrowedFd vm, uint32_t id, kvm_irqchip chip) {
    chip.chip_id = id;
    return kvm.calls().set(vm, KVM_SET_IRQCHIP, &chip, "ioctl(KVM_SET_IRQCHIP)");
}

}  // namespace

Result<VmState> read_vm_state(const Kvm& kvm, BorrowedFd vm) {
    VmState state;
    MIG_CHECK(read_chip(kvm, vm, KVM_IRQCHIP_PIC_MASTER, state.pic_master), "first PIC");
    MIG_CHECK(read_chip(kvm, vm, KVM_IRQCHIP_PIC_SLAVE, state.pic_slave), "second PIC");
    MIG_CHECK(read_chip(kvm, vm, KVM_IRQCHIP_IOAPIC, state.ioapic), "IOAPIC");
    if (kvm.capabilities().pit) {
        MIG_CHECK(kvm.calls().get(vm, KVM_GET_PIT2, &state.pit.emplace(), "ioctl(KVM_GET_PIT2)"));
    }
    if (kvm.capabilities().clock) {
        MIG_TRY(state.clock_ns, read_clock_ns(kvm, vm));
    }
    return state;
}

Result<> write_vm_state(const Kvm& kvm, BorrowedFd vm, const VmState& state) {
    if (state.pit && !kvm.capabilities().pit) {
        return make_error(ErrorKind::Unsupported, "the host's KVM has no PIT, but the state has");
    }
    if (state.clock_ns && !kvm.capabilities().clock) {
        return make_error(ErrorKind::Unsupported,
                          "the host's KVM cannot set kvmclock, which the state has");
    }
    MIG_CHECK(write_chip(kvm, vm, KVM_IRQCHIP_PIC_MASTER, state.pic_master), "first PIC");
    MIG_CHECK(write_chip(kvm, vm, KVM_IRQCHIP_PIC_SLAVE, state.pic_slave), "second PIC");
    MIG_CHECK(write_chip(kvm, vm, KVM_IRQCHIP_IOAPIC, state.ioapic), "IOAPIC");
    if (state.pit) {
        MIG_CHECK(kvm.calls().set(vm, KVM_SET_PIT2, &*state.pit, "ioctl(KVM_SET_PIT2)"));
    }
    return {};
}

Result<uint64_t> read_clock_ns(const Kvm& kvm, BorrowedFd vm) {
    kvm_clock_data data{};
    MIG_CHECK(kvm.calls().get(vm, KVM_GET_CLOCK, &data, "ioctl(KVM_GET_CLOCK)"));
    return uint64_t{data.clock};
}

Result<> write_clock_ns(const Kvm& kvm, BorrowedFd vm, uint64_t now) {
    kvm_clock_data data{};
    data.clock = now;
    return kvm.calls().set(vm, KVM_SET_CLOCK, &data, "ioctl(KVM_SET_CLOCK)");
}

}  // namespace ferry::kvm
