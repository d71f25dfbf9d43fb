// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string_view>

namespace ferry::vmm {

inline constexpr std::string_view kVersion = FERRY_VERSION;  // from the build

}  // namespace ferry::vmm
