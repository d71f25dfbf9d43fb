// SPDX-License-Identifier: BSD-2-Clause
// One VFIO device of a VM: identity, properties, and its migration. PCI glue is in pci.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "hw/vfio/dma-space.h"
#include "hw/vfio/vfio-device-io.h"
#include "hw/vfio/vfio-migration.h"
#include "migration/blocker.h"
#include "migration/savevm.h"
#include "migration/stream.h"
#include "system/device-memory.h"
#include "system/interrupt-routes.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/env.h"
#include "util/thread.h"

namespace ferry::vfio {

enum class OnOffAuto : uint8_t { Auto, On, Off };

// QEMU's names and defaults.
struct VfioProperties {
    OnOffAuto enable_migration = OnOffAuto::Auto;
    OnOffAuto pre_copy_dirty_page_tracking = OnOffAuto::On;  // x-pre-copy-dirty-page-tracking
    OnOffAuto device_dirty_page_tracking = OnOffAuto::On;    // x-device-dirty-page-tracking
    bool migration_events = false;
    bool skip_vsc_check = true;
    // Whether its state goes over the page channels of multifd (x-migration-multifd-transfer).
    OnOffAuto multifd_transfer = OnOffAuto::Auto;
    // Only then is the configuration announced in its place among the sections
    // (x-migration-load-config-after-iter); auto: off.
    OnOffAuto load_config_after_iter = OnOffAuto::Auto;
    // Bytes of its state that wait at the destination; the session's limit holds all the same
    // (x-migration-max-queued-buffers-size).
    uint64_t max_queued_buffers_size = UINT64_MAX;
};

// The state the VMM itself keeps for a device: configuration space, interrupts. The body of the
// config record.
class VfioConfigState {
 public:
    virtual ~VfioConfigState() = default;
    // Bytes of that body, constant. The body does not tell; where the peer can, both sides compare.
    virtual uint32_t config_bytes() const = 0;
    virtual void save_config(migration::SaveStream& out) = 0;
    // Reads and checks a body, and keeps it for apply_config(). Load thread.
    virtual Result<> read_config(migration::LoadStream& in) = 0;
    // What was read takes effect (COMMAND, interrupts). The device's worker, while RESUMING.
    virtual Result<> apply_config() = 0;
    // After a load that came to nothing: as at power-on, without interrupts. The device itself has
    // been reset, if it could be. On the device's worker.
    virtual Result<> forget_config() = 0;
};

// The VM that devices belong to. Outlives them.
struct VfioVm {
    system::MainLoop& loop;
    util::Env& env;
    system::RunStateController& runstate;
    system::GuestMemory& memory;
    migration::BlockerList& blockers;  // Migration::blockers()
    migration::SaveVMRegistry& registry;
    VfioMigrationServices& services;
    // VFIO_MIGRATION events; any thread; may be null.
    std::function<void(const std::string& id, const std::string& qom_path, MigState state)>
        migration_event;
    // What the accelerator can take over from this process; null where there is nothing, and then
    // interrupts and accesses of BARs come through it.
    system::InterruptRoutes* interrupt_routes = nullptr;
    system::DeviceMemory* device_memory = nullptr;
};

struct VfioIdentity {
    std::string id;        // -device id=, may be empty
    std::string path;      // bus path "0000:00:03.0", may be empty
    std::string qom_path;  // "/machine/peripheral/ID" or "/machine/peripheral-anon/device[N]"
    unsigned depth = 1;    // in the device tree
    // The virtual IOMMU that it is behind; null: its DMA addresses are guest physical ones.
    DmaSpace* dma_space = nullptr;
    // For messages and timelines.
    const std::string& label() const { return id.empty() ? path : id; }
};

// What a device's driver says of its migration.
struct VfioMigrationFindings {
    MigCaps caps;
    MigState state = MigState::Running;
    bool dma_logging = false;
};

// Decides whether and how the device migrates (docs/devel/vfio-migration.rst, "probe"), registers
// its handlers or a blocker. Main loop thread, but may call the driver: realize-time only.
// With enable-migration=on each reason to block is an Error instead.
class VfioDeviceMigration {
 public:
    static Result<std::unique_ptr<VfioDeviceMigration>> realize(VfioVm vm, VfioIdentity identity,
                                                                VfioProperties properties,
                                                                VfioDeviceIo& io,
                                                                util::Worker& worker,
                                                                VfioConfigState* config);
    // The same in two steps, for a loop that must not wait: the driver is asked on any thread, what
    // it said (an Error, too, that only this device minds) is judged on the loop's, without driver.
    static Result<VfioMigrationFindings> examine(VfioDeviceIo& io, const std::string& label);
    static Result<std::unique_ptr<VfioDeviceMigration>> realize(
        VfioVm vm, VfioIdentity identity, VfioProperties properties, VfioDeviceIo& io,
        util::Worker& worker, VfioConfigState* config, Result<VfioMigrationFindings> found);
    // Unregisters, re-judges the other devices, and waits until the worker is through with it.
    virtual ~VfioDeviceMigration() = default;
    // Acts from the next migration on. Main loop thread.
    virtual void set_multifd_transfer(OnOffAuto value) = 0;
    // The guest or the machine reset the device behind migration's back. Any thread; doesn't wait.
    virtual void device_was_reset() = 0;
};

}  // namespace ferry::vfio
