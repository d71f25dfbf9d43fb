// SPDX-License-Identifier: BSD-2-Clause
// Where a guest's CPU goes with what is not RAM: the machine implements this.
#pragma once

#include <cstdint>

#include "system/memory.h"
#include "util/bytes.h"

namespace ferry::kvm {

// What the CPU does after a write. A write that ends the guest's day (power off, reset, suspend)
// says Wait: the CPU executes nothing more until it was paused and resumed, so that the machine's
// main loop decides how it goes on.
enum class AfterWrite : uint8_t { GoOn, Wait };

// Called on the CPUs' threads, several at a time; may block as long as the guest may. Lengths: 1, 2
// or 4 for ports, 1 to 8 for memory. Little-endian.
class Bus {
 public:
    virtual ~Bus() = default;
    virtual uint32_t port_in(uint16_t port, unsigned length) = 0;
    virtual AfterWrite port_out(uint16_t port, unsigned length, uint32_t value) = 0;
    virtual void mmio_read(system::Gpa gpa, MutBytes out) = 0;
    virtual AfterWrite mmio_write(system::Gpa gpa, ConstBytes in) = 0;
};

}  // namespace ferry::kvm
