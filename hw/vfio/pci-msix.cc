// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/pci-msix.h"

#include <linux/pci_regs.h>

#include <algorithm>

namespace ferry::vfio {

namespace {

std::byte bit_of(unsigned vector) {
    return static_cast<std::byte>(1u << (vector % 8));
}

}  // namespace

MsixTable::MsixTable(unsigned vectors)
    : vectors_(vectors),
      table_(size_t{PCI_MSIX_ENTRY_SIZE} * vectors),
      pba_((size_t{vectors} + 63) / 64 * 8) {
    clear();
}

void MsixTable::clear() {
    std::ranges::fill(table_, std::byte{0});
    std::ranges::fill(pba_, std::byte{0});
    for (unsigned i = 0; i < vectors_; ++i) {
        util::store_le32(table_.data() + i * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL,
                         PCI_MSIX_ENTRY_CTRL_MASKBIT);
    }
}

void MsixTable::read_table(uint64_t offset, MutBytes out) const {
    std::copy_n(table_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
}

void MsixTable::write_table(uint64_t offset, ConstBytes in) {
    std::ranges::copy(in, table_.begin() + static_cast<ptrdiff_t>(offset));
}

void MsixTable::read_pba(uint64_t offset, MutBytes out) const {
    std::copy_n(pba_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
}

bool MsixTable::masked(unsigned vector) const {
    const std::byte* entry = table_.data() + size_t{vector} * PCI_MSIX_ENTRY_SIZE;
    return (util::load_le32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL) & PCI_MSIX_ENTRY_CTRL_MASKBIT) != 0;
}

bool MsixTable::pending(unsigned vector) const {
    return (pba_[vector / 8] & bit_of(vector)) != std::byte{0};
}

void MsixTable::set_pending(unsigned vector, bool pending) {
    if (pending) {
        pba_[vector / 8] |= bit_of(vector);
    } else {
        pba_[vector / 8] &= ~bit_of(vector);
    }
}

MsiMessage MsixTable::message(unsigned vector) const {
    const std::byte* entry = table_.data() + size_t{vector} * PCI_MSIX_ENTRY_SIZE;
    return {.address = util::load_le64(entry + PCI_MSIX_ENTRY_LOWER_ADDR) & ~uint64_t{3},
            .data = util::load_le32(entry + PCI_MSIX_ENTRY_DATA)};
}

void MsixTable::save(util::WireWriter& out) const {
    out.bytes(table_);
    out.bytes(ConstBytes(pba_).first((vectors_ + 7) / 8));
}

void MsixTable::load(ConstBytes in) {
    clear();
    std::ranges::copy(in.first(table_.size()), table_.begin());
    std::ranges::copy(in.subspan(table_.size(), (vectors_ + 7) / 8), pba_.begin());
    // Bits beyond the last vector mean nothing.
    for (unsigned i = vectors_; i % 8 != 0; ++i) set_pending(i, false);
}

}  // namespace ferry::vfio
