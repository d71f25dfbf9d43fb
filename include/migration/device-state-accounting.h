// SPDX-License-Identifier: BSD-2-Clause
// All that the migration core knows of passed-through devices. Implemented by hw/vfio.
#pragma once

#include <cstdint>

namespace ferry::migration {

// Thread-safe.
class DeviceStateAccounting {
 public:
    virtual ~DeviceStateAccounting() = default;
    // A migratable device exists and none is blocked: its bytes are worth showing, and the return
    // path is worth opening.
    virtual bool in_play() const = 0;
    virtual uint64_t bytes_sent() const = 0;
    virtual void reset_bytes_sent() = 0;
};

}  // namespace ferry::migration
