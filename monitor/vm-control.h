// SPDX-License-Identifier: BSD-2-Clause
// What the monitor needs of the VM it controls. Implemented by the hypervisor; called on the main
// loop thread; nothing here blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/vfio-migration.h"
#include "migration/migration.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/env.h"

namespace ferry::monitor {

enum class ShutdownCause : uint8_t;

// One entry of query-machines.
struct MachineInfo {
    std::string name;
    std::string alias;  // may be empty
    enum class Default : bool { No, Yes } is_default = Default::No;
    unsigned cpu_max = 1;
    enum class Acpi : bool { No, Yes } acpi = Acpi::No;
};

// A type of object, for qom-list-types: clients find out with it what there is.
struct TypeInfo {
    std::string name;
    std::string parent;  // empty: the root
    enum class Abstract : bool { No, Yes } abstract = Abstract::No;
};

// One entry of query-cpus-fast.
struct CpuInfo {
    int thread_id = 0;
    std::string qom_path;
};

// Which accelerator executes the guest.
struct KvmInfo {
    enum class Enabled : bool { No, Yes } enabled = Enabled::No;  // it is KVM
    enum class Present : bool { No, Yes } present = Present::No;  // it could be
};

class VmControl {
 public:
    virtual ~VmControl() = default;

    virtual std::string name() const = 0;    // empty when the VM has none
    virtual std::string uuid() const = 0;    // zeros when unset
    virtual std::string target() const = 0;  // "x86_64"
    virtual std::vector<MachineInfo> machines() const = 0;
    virtual std::vector<TypeInfo> types() const = 0;  // parents are among them

    virtual system::MainLoop& loop() = 0;
    virtual util::Env& env() = 0;
    virtual system::RunStateController& runstate() = 0;
    virtual migration::Migration& migration() = 0;
    // VfioMigrationServices::devices().
    virtual std::vector<vfio::VfioDeviceMigrationInfo> vfio_devices() const = 0;

    // Ends the process with status 0 when the loop comes round again: replies still go out.
    virtual void quit() = 0;
    // Resets guest and devices. The run state stays (the monitor makes prelaunch of a stopped one).
    // No stop or start is under way. `done` on the loop thread.
    virtual void reset(system::Done done) = 0;
    // Whether a reset is a shutdown instead (-no-reboot): then nobody calls reset().
    virtual bool reset_shuts_down() const = 0;
    // The SHUTDOWN event, and what the VM does then.
    virtual void shut_down(ShutdownCause cause) = 0;
    // InvalidArgument when there is no such device. `done` on the loop thread, when it is gone.
    virtual void device_del(std::string_view id, system::Done done) = 0;

    virtual KvmInfo kvm() const = 0;
    virtual std::vector<CpuInfo> cpus() const = 0;
    // The button that asks the guest to shut down. Unsupported when the machine has none.
    virtual Result<> powerdown() = 0;
    // Out of suspend-to-RAM. Unsupported when this machine can't suspend.
    virtual Result<> wakeup() = 0;
    enum class WakeupSupport : bool { No, Yes };
    virtual WakeupSupport wakeup_support() const = 0;
};

}  // namespace ferry::monitor
