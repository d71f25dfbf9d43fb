// SPDX-License-Identifier: BSD-2-Clause
// The data session that a state change opened: reads and writes of its descriptor.
#pragma once

#include <memory>

#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"

namespace ferry::vfio {

std::unique_ptr<MigDataStream> make_kernel_data_stream(Kernel& kernel, KernelFile data);

}  // namespace ferry::vfio
