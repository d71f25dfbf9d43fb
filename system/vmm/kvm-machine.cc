// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/kvm-machine.h"

#include <future>

#include "util/try.h"

namespace ferry::vmm {

using system::RunState;

// --- The bus

uint32_t KvmMachine::Bus::port_in(uint16_t port, unsigned length) {
    return board_.port_read(port, length);
}

kvm::AfterWrite KvmMachine::Bus::port_out(uint16_t port, unsigned length, uint32_t value) {
    board_.port_write(port, length, value);
    return after_write();
}

void KvmMachine::Bus::mmio_read(system::Gpa gpa, MutBytes out) {
    board_.memory_read(gpa, out);
}

kvm::AfterWrite KvmMachine::Bus::mmio_write(system::Gpa gpa, ConstBytes in) {
    board_.memory_write(gpa, in);
    return after_write();
}

// A request of another CPU stops this one, too, at its next write: what it waits for is the same.
kvm::AfterWrite KvmMachine::Bus::after_write() const {
    return requests_.pending() ? kvm::AfterWrite::Wait : kvm::AfterWrite::GoOn;
}

// --- The machine

Result<std::unique_ptr<KvmMachine>> KvmMachine::create(const Parts& parts, Config config,
                                                       kvm::Vcpus::OnEnd on_end) {
    std::unique_ptr<KvmMachine> machine(new KvmMachine(parts, std::move(config.boot)));
    MIG_CHECK(machine->set_up(config, std::move(on_end)));
    return machine;
}

Result<> KvmMachine::set_up(Config& config, kvm::Vcpus::OnEnd on_end) {
    MIG_TRY(vm_, kvm::KvmVm::create(parts_.kvm, parts_.board.memory()));
    const kvm::Capabilities& host = parts_.kvm.capabilities();
    if (host.irqfd && host.irq_routing) routes_.emplace(vm_->interrupts());
    MIG_TRY(vcpus_,
            kvm::Vcpus::create(*vm_, {.count = config.cpus, .model = std::move(config.model)}, bus_,
                               parts_.loop, parts_.env, std::move(on_end)));
    if (kvm::DirtyRings* const rings = vm_->dirty_rings()) {
        dirty_log_ = std::make_unique<kvm::DirtyRingLog>(vm_->calls(), vm_->fd(), vm_->ram_slots(),
                                                         *rings, parts_.env.log);
    } else {
        dirty_log_ = std::make_unique<kvm::DirtyLog>(vm_->calls(), vm_->fd(), vm_->ram_slots(),
                                                     vm_->dirty_log_mode(), parts_.env.log);
    }
    tracker_ = parts_.board.memory().add_tracker(*dirty_log_);
    MIG_TRY(state_, KvmState::create(*vm_, *vcpus_, parts_.registry));
    return reset_and_wait();
}

// Before the loop runs. A VM that waits for its state keeps its RAM empty.
Result<> KvmMachine::reset_and_wait() {
    if (parts_.runstate.state() != RunState::InMigrate) {
        MIG_CHECK(boot_.place(parts_.board.memory()));
    }
    std::promise<Result<>> over;
    vcpus_->reset([this](kvm::VcpuState& cpu) { boot_.enter(cpu); },
                  [&over](Result<> result) { over.set_value(std::move(result)); });
    return over.get_future().get();
}

void KvmMachine::reset(Memory memory, system::Done done) {
    if (memory == Memory::Reloaded) {
        if (auto placed = boot_.place(parts_.board.memory()); !placed) {
            return done(std::move(placed));
        }
    }
    vcpus_->reset(
        [this](kvm::VcpuState& cpu) { boot_.enter(cpu); },
        [this, done = std::move(done)](Result<> result) mutable {
            parts_.loop.post([done = std::move(done), result = std::move(result)]() mutable {
                done(std::move(result));
            });
        });
}

}  // namespace ferry::vmm
