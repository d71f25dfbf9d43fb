// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/vfio-migration.h"

#include "hw/vfio/dirty-tracking.h"  // Members owns one
#include "hw/vfio/migration-internal.h"

namespace ferry::vfio {

VfioMigrationServices::Members::Handle VfioMigrationServices::Members::add(Device device) {
    const std::lock_guard lock(mutex);
    return devices.insert(devices.end(), std::move(device));
}

void VfioMigrationServices::Members::remove(Handle handle) {
    const std::lock_guard lock(mutex);
    devices.erase(handle);
}

void VfioMigrationServices::Members::set_blocked(Handle handle, bool blocked) {
    const std::lock_guard lock(mutex);
    handle->blocked = blocked;
}

std::vector<std::string> VfioMigrationServices::Members::lacking_p2p() const {
    const std::lock_guard lock(mutex);
    size_t migratable = 0;
    std::vector<std::string> lacking;
    for (const Device& device : devices) {
        if (!device.status) continue;
        ++migratable;
        if (!device.p2p) lacking.push_back(device.status->label);
    }
    return migratable > 1 ? lacking : std::vector<std::string>();
}

void VfioMigrationServices::Members::count_sent(DeviceStatus& status, uint64_t bytes) {
    status.sent_bytes.fetch_add(bytes, std::memory_order_relaxed);
    bytes_sent.fetch_add(bytes, std::memory_order_relaxed);
}

VfioMigrationServices::VfioMigrationServices() : members_(std::make_unique<Members>()) {}
VfioMigrationServices::~VfioMigrationServices() = default;

bool VfioMigrationServices::in_play() const {
    const std::lock_guard lock(members_->mutex);
    for (const Members::Device& device : members_->devices) {
        if (device.blocked) return false;
    }
    return !members_->devices.empty();
}

uint64_t VfioMigrationServices::bytes_sent() const {
    return members_->bytes_sent.load(std::memory_order_relaxed);
}

void VfioMigrationServices::reset_bytes_sent() {
    const std::lock_guard lock(members_->mutex);
    members_->bytes_sent.store(0, std::memory_order_relaxed);
    for (const Members::Device& device : members_->devices) {
        if (device.status) device.status->sent_bytes.store(0, std::memory_order_relaxed);
    }
}

std::vector<VfioDeviceMigrationInfo> VfioMigrationServices::devices() const {
    const std::lock_guard lock(members_->mutex);
    std::vector<VfioDeviceMigrationInfo> infos;
    for (const Members::Device& device : members_->devices) {
        if (!device.status) continue;
        const DeviceStatus& status = *device.status;
        const MigState state = status.state.load(std::memory_order_relaxed);
        infos.push_back(
            {.id = status.label,
             .state = std::string(state == MigState::Error ? "broken" : to_string(state)),
             .sent_bytes = status.sent_bytes.load(std::memory_order_relaxed),
             .loaded_bytes = status.loaded_bytes.load(std::memory_order_relaxed)});
    }
    return infos;
}

}  // namespace ferry::vfio
