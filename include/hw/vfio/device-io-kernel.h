// SPDX-License-Identifier: BSD-2-Clause
// VfioDeviceIo over a device descriptor of the kernel. See docs/devel/vfio-kernel.rst.
#pragma once

#include <memory>

#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/registration.h"

namespace ferry::vfio {

// Asks for the device's regions at once, so that later accesses need no further query. `lease` goes
// after the descriptor was closed: the device's hold on its group. `iommu_log` (may be null) is
// there as long as the lease. `kernel` outlives the device.
Result<std::unique_ptr<VfioDeviceIo>> create_kernel_device_io(Kernel& kernel, KernelFile device,
                                                              util::Registration lease,
                                                              IommuDirtyLog* iommu_log = nullptr);

}  // namespace ferry::vfio
