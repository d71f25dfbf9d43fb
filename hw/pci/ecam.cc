// SPDX-License-Identifier: BSD-2-Clause
#include "hw/pci/ecam.h"

#include <algorithm>
#include <bit>

#include "util/wire.h"

namespace ferry::pci {

namespace {

// The fields of an offset into the window.
uint64_t bus_of(uint64_t offset) {
    return offset >> 20;
}
PciAddress function_of(uint64_t offset) {
    return {.device = static_cast<uint8_t>(offset >> 15 & 0x1f),
            .function = static_cast<uint8_t>(offset >> 12 & 0x7)};
}
uint16_t register_of(uint64_t offset) {
    return static_cast<uint16_t>(offset & 0xfff);
}

// Configuration space is accessed by 1, 2 or 4 bytes, aligned.
unsigned piece(uint64_t offset, size_t left) {
    const unsigned aligned = 1u << std::min(std::countr_zero(offset), 2);
    return static_cast<unsigned>(std::bit_floor(std::min<size_t>(left, aligned)));
}

}  // namespace

bool Ecam::read(uint64_t gpa, MutBytes out) {
    if (!decodes(gpa)) return false;
    uint64_t offset = gpa - base_;
    while (!out.empty()) {
        const unsigned width = piece(offset, out.size());
        uint32_t value = UINT32_MAX;
        if (bus_of(offset) == 0) {
            value = bus_.config_read(function_of(offset), register_of(offset), width);
        }
        std::byte raw[sizeof(value)];
        util::store_le32(raw, value);
        std::copy_n(raw, width, out.begin());
        out = out.subspan(width);
        offset += width;
    }
    return true;
}

bool Ecam::write(uint64_t gpa, ConstBytes in) {
    if (!decodes(gpa)) return false;
    uint64_t offset = gpa - base_;
    while (!in.empty()) {
        const unsigned width = piece(offset, in.size());
        std::byte raw[sizeof(uint32_t)]{};
        std::copy_n(in.begin(), width, raw);
        if (bus_of(offset) == 0) {
            bus_.config_write(function_of(offset), register_of(offset), width,
                              util::load_le32(raw));
        }
        in = in.subspan(width);
        offset += width;
    }
    return true;
}

}  // namespace ferry::pci
