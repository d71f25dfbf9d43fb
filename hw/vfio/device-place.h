// SPDX-License-Identifier: BSD-2-Clause
// Where a device of the host is found below /sys.
#pragma once

#include <string>
#include <string_view>

#include "util/result.h"

namespace ferry::vfio {

// The device's folder, by its PCI address ("0000:3b:00.2", "3b:00.2") or its path below /sys.
Result<std::string> sysfs_device_path(std::string_view host);
std::string_view last_component(std::string_view path);

}  // namespace ferry::vfio
