// SPDX-License-Identifier: BSD-2-Clause
// Where a CPU begins: registers for the ways a machine without firmware enters its guest.
#pragma once

#include <cstdint>

#include "accel/kvm/uapi.h"

namespace ferry::kvm {

struct RealModeEntry {
    uint16_t segment = 0;
    uint16_t offset = 0;
    uint16_t dx = 0;     // a boot sector finds its drive there
    uint16_t stack = 0;  // the stack pointer, in segment 0
};
// Out of the state after reset. Interrupts off.
void enter_real_mode(kvm_regs& regs, kvm_sregs& sregs, const RealModeEntry& entry);

struct FlatEntry {
    uint32_t eip = 0;
    uint32_t eax = 0;  // multiboot's magic
    uint32_t ebx = 0;  // where the loader's information lies
};
// 32-bit protected mode without paging, all segments flat, interrupts off.
void enter_flat_mode(kvm_regs& regs, kvm_sregs& sregs, const FlatEntry& entry);

}  // namespace ferry::kvm
