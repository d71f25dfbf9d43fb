// SPDX-License-Identifier: BSD-2-Clause
// The MSI-X table and its pending bits, kept by the VMM: the guest never reaches the device's.
#pragma once

#include <cstdint>
#include <vector>

#include "hw/vfio/pci-config.h"
#include "util/bytes.h"
#include "util/wire.h"

namespace ferry::vfio {

// One thread at a time. Vectors and offsets are the caller's duty.
class MsixTable {
 public:
    explicit MsixTable(unsigned vectors);

    unsigned vectors() const { return vectors_; }
    // The guest's accesses, offsets into table and pending bits.
    void read_table(uint64_t offset, MutBytes out) const;
    void write_table(uint64_t offset, ConstBytes in);
    void read_pba(uint64_t offset, MutBytes out) const;

    bool masked(unsigned vector) const;
    bool pending(unsigned vector) const;
    void set_pending(unsigned vector, bool pending);
    MsiMessage message(unsigned vector) const;
    // As after power-on: all masked, nothing pending.
    void clear();

    // The migrated form: the raw table, then one pending bit per vector.
    static size_t wire_bytes(unsigned vectors) { return 16 * size_t{vectors} + (vectors + 7) / 8; }
    void save(util::WireWriter& out) const;
    void load(ConstBytes in);  // wire_bytes()

 private:
    unsigned vectors_;
    std::vector<std::byte> table_;
    std::vector<std::byte> pba_;
};

}  // namespace ferry::vfio
