// SPDX-License-Identifier: BSD-2-Clause
// The records that section "ram" is made of: docs/interop/stream-format.rst, "RAM".
#pragma once

#include <cstdint>

#include "system/memory.h"

namespace ferry::migration {

inline constexpr uint32_t kRamVersion = 4;

// The low bits of a record's first word; an offset or a size stands above.
inline constexpr uint64_t kRamFlagMask = system::kPageSize - 1;
inline constexpr uint64_t kRamZero = 0x002;
inline constexpr uint64_t kRamMemSize = 0x004;
inline constexpr uint64_t kRamPage = 0x008;
inline constexpr uint64_t kRamEos = 0x010;
inline constexpr uint64_t kRamMultifdFlush = 0x200;
inline constexpr uint64_t kRamContinue = 0x020;  // joins Zero and Page only

}  // namespace ferry::migration
