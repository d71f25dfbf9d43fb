// SPDX-License-Identifier: BSD-2-Clause
// PCI Express's enhanced configuration mechanism: all configuration space as memory.
#pragma once

#include <cstdint>

#include "hw/pci/pci.h"
#include "util/bytes.h"

namespace ferry::pci {

// 4 KiB per function, 256 buses, of which bus 0 exists. Thread-safe, as the bus.
class Ecam {
 public:
    static constexpr uint64_t kQ35Base = 0xb0000000;
    static constexpr uint64_t kSize = uint64_t{256} << 20;

    // `base`: guest physical address of the window.
    explicit Ecam(PciBus& bus, uint64_t base = kQ35Base) : bus_(bus), base_(base) {}

    // Whether the access begins in the window; then it has happened. Of any length: what is longer
    // or less aligned than configuration space allows is done in pieces; what has no function
    // behind it, or lies beyond the window, reads all ones.
    bool read(uint64_t gpa, MutBytes out);
    bool write(uint64_t gpa, ConstBytes in);

 private:
    bool decodes(uint64_t gpa) const { return gpa >= base_ && gpa - base_ < kSize; }

    PciBus& bus_;
    const uint64_t base_;
};

}  // namespace ferry::pci
