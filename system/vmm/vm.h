// SPDX-License-Identifier: BSD-2-Clause
// One virtual machine, put together: everything that the process holds between its start and its
// end. The order of the members is the order of construction, and reversed that of destruction.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hw/vfio/vfio-migration.h"
#include "migration/migration.h"
#include "monitor/monitor.h"
#include "monitor/vm-control.h"
#include "system/runstate.h"
#include "system/vmm/board.h"
#include "system/vmm/devices.h"
#include "system/vmm/glib-main-loop.h"
#include "system/vmm/guest-power.h"
#include "system/vmm/joined-vcpus.h"
#include "system/vmm/kvm-machine.h"
#include "system/vmm/management.h"
#include "system/vmm/options.h"
#include "system/vmm/platform.h"
#include "system/vmm/qtest-server.h"
#include "system/vmm/workloads.h"
#include "util/env.h"

namespace ferry::vmm {

// Main loop thread.
class Vm final : public monitor::VmControl {
 public:
    // Everything that can fail at a start, and then the sockets. Both outlive the VM.
    static Result<std::unique_ptr<Vm>> create(Options options, GlibMainLoop& loop, util::Env& env);
    ~Vm() override = default;

    // Until the process is to end; its exit status.
    int run();

    std::string name() const override { return options_.name; }
    std::string uuid() const override { return options_.uuid; }
    std::string target() const override { return "x86_64"; }
    std::vector<monitor::MachineInfo> machines() const override;
    std::vector<monitor::TypeInfo> types() const override;
    system::MainLoop& loop() override { return loop_; }
    util::Env& env() override { return env_; }
    system::RunStateController& runstate() override { return runstate_; }
    migration::Migration& migration() override { return *migration_; }
    std::vector<vfio::VfioDeviceMigrationInfo> vfio_devices() const override {
        return vfio_services_.devices();
    }
    void quit() override;
    void reset(system::Done done) override;
    bool reset_shuts_down() const override;
    void shut_down(monitor::ShutdownCause cause) override;
    void device_del(std::string_view id, system::Done done) override;
    monitor::KvmInfo kvm() const override;
    std::vector<monitor::CpuInfo> cpus() const override;
    Result<> powerdown() override;
    Result<> wakeup() override;
    WakeupSupport wakeup_support() const override {
        return platform_ ? WakeupSupport::Yes : WakeupSupport::No;
    }
    const Options& options() const { return options_; }

    Board& board() { return *board_; }
    Workloads& workloads() { return workloads_; }
    // What CPUs wrote; null where none execute.
    system::DirtyTracker* cpu_writes() {
        return kvm_machine_ ? &kvm_machine_->cpu_writes() : nullptr;
    }
    bool has_dirty_rings() const { return kvm_machine_ && kvm_machine_->has_dirty_rings(); }
    std::vector<Platform::Object> platform_objects() const {
        return platform_ ? platform_->objects() : std::vector<Platform::Object>();
    }
    Devices& devices() { return *devices_; }

 private:
    Vm(Options options, GlibMainLoop& loop, util::Env& env, std::unique_ptr<Board> board,
       Accelerator accelerator);
    Result<> create_cpus();
    Result<> create_platform();
    void reset_cpus(KvmMachine::Memory memory, system::Done done);
    void reset_machine(KvmMachine::Memory memory, system::Done done);
    Result<> create_devices();
    Result<> serve();
    qtest::Protocol::Parts qtest_parts();
    Result<> begin();
    // Cancels what runs and leaves the loop; without waiting for ever for a driver.
    void end(int status);
    void try_to_end();

    const Options options_;
    GlibMainLoop& loop_;
    util::Env& env_;
    const Accelerator accelerator_;
    std::unique_ptr<Board> board_;
    system::RunStateController runstate_;
    migration::SaveVMRegistry registry_;
    vfio::VfioMigrationServices vfio_services_;
    std::unique_ptr<migration::Migration> migration_;
    std::vector<util::Registration> board_state_;
    std::optional<monitor::Monitor> monitor_;
    Workloads workloads_;
    GuestPower power_;
    std::unique_ptr<KvmMachine> kvm_machine_;  // null without KVM, and in a machine without CPUs
    JoinedVcpus vcpus_;
    std::unique_ptr<Platform> platform_;  // null in a machine without devices
    std::optional<Devices> devices_;
    std::unique_ptr<Management> management_;
    std::unique_ptr<QtestServer> qtest_;
    util::Registration signals_;

    struct Ending {
        int status;
        util::Nanoseconds deadline;
        enum class Attempts : uint8_t { Running, Over } attempts = Attempts::Running;
        util::Registration timer;
    };
    std::optional<Ending> ending_;
};

}  // namespace ferry::vmm
