// SPDX-License-Identifier: BSD-2-Clause
// The MSI and MSI-X capabilities in the shadow of the configuration space.
#include <linux/pci_regs.h>

#include <algorithm>
#include <bit>

#include "hw/vfio/pci-config.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {

namespace {

constexpr size_t kMsixBytes = 12;
constexpr unsigned kMaxMsiVectors = 32;

}  // namespace

Result<> PciConfig::set_up_msix(const pci::PciCapability& capability, const Hardware& hardware) {
    if (msix_) return make_error(ErrorKind::Protocol, "a second MSI-X capability");
    if (capability.length < kMsixBytes) {
        return make_error(ErrorKind::Protocol, "MSI-X capability of {} bytes", capability.length);
    }
    const size_t at = capability.offset;
    const uint32_t table = space_.u32(at + PCI_MSIX_TABLE);
    const uint32_t pba = space_.u32(at + PCI_MSIX_PBA);
    MsixLayout layout;
    layout.capability = capability.offset;
    layout.vectors = (space_.u16(at + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
    layout.table_bar = table & PCI_MSIX_TABLE_BIR;
    layout.table_offset = table & PCI_MSIX_TABLE_OFFSET;
    layout.pba_bar = pba & PCI_MSIX_PBA_BIR;
    layout.pba_offset = pba & PCI_MSIX_PBA_OFFSET;
    MIG_CHECK(check_msix_area(layout.table_bar, layout.table_offset, layout.table_bytes()),
              "MSI-X table");
    MIG_CHECK(check_msix_area(layout.pba_bar, layout.pba_offset, layout.pba_bytes()),
              "MSI-X pending bits");
    if (layout.table_bar == layout.pba_bar &&
        layout.table_offset < layout.pba_offset + layout.pba_bytes() &&
        layout.pba_offset < layout.table_offset + layout.table_bytes()) {
        return make_error(ErrorKind::Protocol, "MSI-X table and pending bits overlap");
    }
    if (hardware.msix_vectors < layout.vectors) {
        return make_error(ErrorKind::Protocol,
                          "the MSI-X table has {} entries, the driver offers {} interrupts",
                          layout.vectors, hardware.msix_vectors);
    }
    // Disabled, as after power-on; the guest may change the two upper bits.
    constexpr uint16_t kGuests = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
    space_.set_u16(at + PCI_MSIX_FLAGS, space_.u16(at + PCI_MSIX_FLAGS) & ~kGuests);
    util::store_le16(space_.writable().data() + at + PCI_MSIX_FLAGS, kGuests);
    emulate(at, kMsixBytes);
    msix_ = layout;
    return {};
}

Result<> PciConfig::check_msix_area(unsigned bar, uint64_t offset, uint64_t bytes) const {
    const uint64_t room = bar < kPciBars && !bars_[bar].is_io ? bars_[bar].size : 0;
    if (bytes <= room && offset <= room - bytes) return {};
    return make_error(ErrorKind::Protocol, "{:#x}+{:#x} leaves BAR {} of {:#x} bytes", offset,
                      bytes, bar, room);
}

Result<> PciConfig::set_up_msi(const pci::PciCapability& capability, const Hardware& hardware) {
    if (msi_) return make_error(ErrorKind::Protocol, "a second MSI capability");
    const size_t at = capability.offset;
    const uint16_t flags =
        capability.length > PCI_MSI_FLAGS + 1 ? space_.u16(at + PCI_MSI_FLAGS) : 0;
    Msi msi;
    msi.capability = capability.offset;
    msi.is_64bit = (flags & PCI_MSI_FLAGS_64BIT) != 0;
    msi.maskable = (flags & PCI_MSI_FLAGS_MASKBIT) != 0;
    constexpr unsigned kQmaskShift = 1;
    const unsigned wanted = 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> kQmaskShift);
    msi.vectors = std::min({wanted, hardware.msi_vectors, kMaxMsiVectors});
    if (capability.length < msi.length()) {
        return make_error(ErrorKind::Protocol, "MSI capability of {} bytes", capability.length);
    }
    constexpr uint16_t kGuests = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE;
    space_.set_u16(at + PCI_MSI_FLAGS, flags & ~kGuests);
    std::byte* writable = space_.writable().data();
    util::store_le16(writable + at + PCI_MSI_FLAGS, kGuests);
    space_.set_u32(at + PCI_MSI_ADDRESS_LO, 0);
    util::store_le32(writable + at + PCI_MSI_ADDRESS_LO, ~uint32_t{3});
    if (msi.is_64bit) {
        space_.set_u32(at + PCI_MSI_ADDRESS_HI, 0);
        util::store_le32(writable + at + PCI_MSI_ADDRESS_HI, UINT32_MAX);
    }
    space_.set_u16(msi.data(), 0);
    util::store_le16(writable + msi.data(), UINT16_MAX);
    if (msi.maskable) {
        const uint32_t vectors =
            msi.vectors == kMaxMsiVectors ? UINT32_MAX : (uint32_t{1} << msi.vectors) - 1;
        space_.set_u32(msi.mask(), 0);
        util::store_le32(writable + msi.mask(), vectors);
        space_.set_u32(msi.pending(), 0);
    }
    emulate(at, msi.length());
    msi_ = msi;
    return {};
}

bool PciConfig::msix_enabled() const {
    return msix_ && (space_.u16(msix_->capability + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE) != 0;
}

bool PciConfig::msix_function_masked() const {
    return msix_ && (space_.u16(msix_->capability + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_MASKALL) != 0;
}

bool PciConfig::msi_enabled() const {
    return msi_ && msi_->vectors > 0 &&
           (space_.u16(msi_->capability + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_ENABLE) != 0;
}

unsigned PciConfig::msi_vectors() const {
    if (!msi_enabled()) return 0;
    constexpr unsigned kQsizeShift = 4;
    const uint16_t flags = space_.u16(msi_->capability + PCI_MSI_FLAGS);
    const unsigned wanted = 1u << ((flags & PCI_MSI_FLAGS_QSIZE) >> kQsizeShift);
    return std::min(wanted, std::bit_floor(msi_->vectors));
}

bool PciConfig::msi_masked(unsigned vector) const {
    return msi_ && msi_->maskable && (space_.u32(msi_->mask()) >> vector & 1) != 0;
}

void PciConfig::set_msi_pending(unsigned vector, bool pending) {
    const uint32_t bit = uint32_t{1} << vector;
    msi_pending_ = pending ? msi_pending_ | bit : msi_pending_ & ~bit;
    if (msi_ && msi_->maskable) space_.set_u32(msi_->pending(), msi_pending_);
}

MsiMessage PciConfig::msi_message(unsigned vector) const {
    MsiMessage message;
    const size_t at = msi_->capability;
    message.address = space_.u32(at + PCI_MSI_ADDRESS_LO);
    if (msi_->is_64bit) {
        message.address |= static_cast<uint64_t>(space_.u32(at + PCI_MSI_ADDRESS_HI)) << 32;
    }
    // The low bits of the data tell the vectors apart.
    message.data = (space_.u16(msi_->data()) & ~(msi_vectors() - 1)) | vector;
    return message;
}

}  // namespace ferry::vfio
