// SPDX-License-Identifier: BSD-2-Clause
// The part of a VM that KVM provides: its CPUs with their interrupt controllers, what they wrote to
// memory, and the sections in which that migrates. See docs/devel/kvm.rst.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "accel/kvm/dirty-log.h"
#include "accel/kvm/irq-routes.h"
#include "accel/kvm/vcpus.h"
#include "accel/kvm/vm.h"
#include "migration/savevm.h"
#include "system/runstate.h"
#include "system/vmm/board.h"
#include "system/vmm/boot-image.h"
#include "system/vmm/guest-requests.h"
#include "system/vmm/kvm-state.h"
#include "util/env.h"

namespace ferry::vmm {

// Main loop thread.
class KvmMachine final : public system::VcpuControl {
 public:
    struct Parts {  // all outlive the machine
        const kvm::Kvm& kvm;
        Board& board;
        GuestRequests& requests;
        system::RunStateController& runstate;
        migration::SaveVMRegistry& registry;
        system::MainLoop& loop;
        util::Env& env;
    };
    struct Config {
        unsigned cpus = 1;
        kvm::CpuModel model;
        BootImage boot;
    };
    // Parked, in front of the guest's first instruction. The RAM is complete by now.
    static Result<std::unique_ptr<KvmMachine>> create(const Parts& parts, Config config,
                                                      kvm::Vcpus::OnEnd on_end);
    ~KvmMachine() override = default;
    KvmMachine(const KvmMachine&) = delete;
    KvmMachine& operator=(const KvmMachine&) = delete;

    void pause(system::Done done) override { vcpus_->pause(std::move(done)); }
    void resume() override { vcpus_->resume(); }

    Result<> set_throttle(unsigned percent) override { return vcpus_->set_throttle(percent); }

    enum class Memory : uint8_t { Reloaded, Kept };  // Kept: a wake-up out of suspend-to-RAM
    // While paused. `done` on the loop thread.
    void reset(Memory memory, system::Done done);

    system::DirtyTracker& cpu_writes() { return *dirty_log_; }
    bool has_dirty_rings() const { return vm_->dirty_rings() != nullptr; }
    kvm::Interrupts& interrupts() { return vm_->interrupts(); }
    // Null where the host's KVM has no irqfd.
    system::InterruptRoutes* routes() { return routes_ ? &*routes_ : nullptr; }
    system::DeviceMemory& device_memory() { return *vm_; }
    std::vector<int> thread_ids() const { return vcpus_->thread_ids(); }

 private:
    // Where the CPUs' accesses go.
    class Bus final : public kvm::Bus {
     public:
        Bus(Board& board, const GuestRequests& requests) : board_(board), requests_(requests) {}
        uint32_t port_in(uint16_t port, unsigned length) override;
        kvm::AfterWrite port_out(uint16_t port, unsigned length, uint32_t value) override;
        void mmio_read(system::Gpa gpa, MutBytes out) override;
        kvm::AfterWrite mmio_write(system::Gpa gpa, ConstBytes in) override;

     private:
        kvm::AfterWrite after_write() const;

        Board& board_;
        const GuestRequests& requests_;
    };

    KvmMachine(const Parts& parts, BootImage boot)
        : parts_(parts), boot_(std::move(boot)), bus_(parts.board, parts.requests) {}
    Result<> set_up(Config& config, kvm::Vcpus::OnEnd on_end);
    Result<> reset_and_wait();

    const Parts parts_;
    const BootImage boot_;
    Bus bus_;
    std::unique_ptr<kvm::KvmVm> vm_;
    std::optional<kvm::KvmInterruptRoutes> routes_;
    std::unique_ptr<kvm::Vcpus> vcpus_;
    std::unique_ptr<system::DirtyTracker> dirty_log_;
    util::Registration tracker_;
    std::unique_ptr<KvmState> state_;
};

}  // namespace ferry::vmm
