// SPDX-License-Identifier: BSD-2-Clause
// Memory of devices that the guest's CPUs reach without leaving the guest: what an accelerator
// offers to those whose BARs can be mapped.
#pragma once

#include "system/memory.h"
#include "util/bytes.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::system {

// Any thread.
class DeviceMemory {
 public:
    virtual ~DeviceMemory() = default;
    // The guest sees `host` at `gpa` until the Registration goes. Whole pages; an Error where the
    // guest has something else already. Neither is waited for by a CPU that is inside a device.
    virtual Result<util::Registration> map_device_memory(Gpa gpa, MutBytes host) = 0;
};

}  // namespace ferry::system
