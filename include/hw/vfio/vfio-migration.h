// SPDX-License-Identifier: BSD-2-Clause
// What the rest of a VMM may know of VFIO migration: is it in play, bytes sent, reset the count;
// and one line per device for the person who asks. One VfioMigrationServices per VM.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "migration/device-state-accounting.h"

namespace ferry::vfio {

class VfioMigration;  // one device's

struct VfioDeviceMigrationInfo {
    std::string id;           // the device's id, or its path
    std::string state;        // QMP's device-state name, or "broken"
    uint64_t sent_bytes = 0;  // device data of this attempt
    uint64_t loaded_bytes = 0;
};

class VfioMigrationServices final : public migration::DeviceStateAccounting {
 public:
    VfioMigrationServices();
    ~VfioMigrationServices() override;

    bool in_play() const override;
    uint64_t bytes_sent() const override;
    void reset_bytes_sent() override;

    std::vector<VfioDeviceMigrationInfo> devices() const;  // any thread

    // hw/vfio only: see migration-internal.h.
    struct Members;
    Members& members() { return *members_; }

 private:
    std::unique_ptr<Members> members_;
};

}  // namespace ferry::vfio
