// SPDX-License-Identifier: BSD-2-Clause
// What a kernel is told about the machine: RAM and the command line, in the form of its boot
// protocol, in low memory.
#pragma once

#include <string>

#include "system/memory.h"
#include "system/vmm/boot-image.h"

namespace ferry::vmm {

// Room for all of it; no kernel is loaded there.
inline constexpr system::Gpa kBootInfoAt = 0x9000;
inline constexpr uint64_t kBootInfoBytes = 0x2000;
inline constexpr size_t kMaxCommandLine = 2048;

// The segment for kBootInfoAt. `command_line` has at most kMaxCommandLine bytes.
BootSegment boot_info(BootProtocol protocol, const system::GuestMemory& memory,
                      const std::string& command_line);
// What the registers hold then.
inline constexpr uint32_t kMultibootEax = 0x2bad'b002;

}  // namespace ferry::vmm
