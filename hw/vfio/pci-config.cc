// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/pci-config.h"

#include <linux/pci_regs.h>

#include <algorithm>
#include <bit>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {

namespace {

constexpr size_t kHeaderBytes = 0x40;
constexpr size_t kBarBytes = 4;
constexpr size_t kMsixBytes = 12;
constexpr uint8_t kMultiFunction = 0x80;
constexpr uint16_t kCommandWritable = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                      PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                      PCI_COMMAND_INTX_DISABLE;
constexpr uint16_t kStatusErrors = PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT |
                                   PCI_STATUS_REC_TARGET_ABORT | PCI_STATUS_REC_MASTER_ABORT |
                                   PCI_STATUS_SIG_SYSTEM_ERROR | PCI_STATUS_DETECTED_PARITY;

size_t bar_register(unsigned bar) {
    return PCI_BASE_ADDRESS_0 + kBarBytes * bar;
}

bool overlaps(size_t offset, size_t length, size_t other, size_t other_length) {
    return offset < other + other_length && other < offset + length;
}

}  // namespace

PciConfig::PciConfig(std::vector<std::byte> image)
    : space_(std::move(image)), emulated_(space_.size()) {}

Result<PciConfig> PciConfig::create(Hardware hardware, VendorBytes vendor_bytes) {
    const size_t size = hardware.config.size();
    if (size != pci::kConfigBytes && size != pci::kExpressConfigBytes) {
        return make_error(ErrorKind::Unsupported,
                          "a configuration space of {} bytes; PCI's has {}, PCI Express' {}", size,
                          pci::kConfigBytes, pci::kExpressConfigBytes);
    }
    constexpr uint8_t kHeaderTypeMask = 0x7f;
    const auto header_type =
        static_cast<uint8_t>(hardware.config[PCI_HEADER_TYPE]) & kHeaderTypeMask;
    if (header_type != PCI_HEADER_TYPE_NORMAL) {
        return make_error(ErrorKind::Unsupported, "PCI header type {}: not an endpoint",
                          header_type);
    }
    PciConfig config(std::move(hardware.config));
    config.set_up_header(hardware);
    for (size_t at = hardware.config_bytes; at < size; ++at) config.emulated_[at] = true;
    MIG_CHECK(config.set_up_bars(hardware));
    MIG_CHECK(config.set_up_capabilities(hardware, vendor_bytes));
    config.power_on_.assign(config.image().begin(), config.image().end());
    return config;
}

void PciConfig::emulate(size_t offset, size_t length) {
    for (size_t i = 0; i < length; ++i) emulated_[offset + i] = true;
}

void PciConfig::compare(size_t offset, size_t length) {
    std::ranges::fill(space_.must_match().subspan(offset, length), std::byte{0xff});
}

void PciConfig::set_up_header(const Hardware& hardware) {
    emulate(0, kHeaderBytes);
    for (size_t at = PCI_STATUS; at < PCI_STATUS + 2; ++at) emulated_[at] = false;
    // As after power-on; and the guest sees one function per slot.
    space_.set_u16(PCI_COMMAND, 0);
    space_.set_u8(PCI_HEADER_TYPE, space_.u8(PCI_HEADER_TYPE) & ~kMultiFunction);
    space_.set_u32(PCI_ROM_ADDRESS, 0);  // the option ROM is not for the guest
    constexpr uint8_t kLastPin = 4;
    pin_ = space_.u8(PCI_INTERRUPT_PIN);
    if (!hardware.has_intx || pin_ > kLastPin) pin_ = 0;
    space_.set_u8(PCI_INTERRUPT_PIN, pin_);
    const bool wired = pin_ != 0 && hardware.interrupt_line;
    space_.set_u8(PCI_INTERRUPT_LINE,
                  wired ? static_cast<uint8_t>(hardware.interrupt_line(pin_)) : uint8_t{0});

    compare(PCI_VENDOR_ID, 4);  // and the device id
    util::store_le16(space_.must_match().data() + PCI_STATUS, PCI_STATUS_CAP_LIST);
    compare(PCI_CLASS_REVISION, 4);
    compare(PCI_HEADER_TYPE, 1);
    compare(PCI_CAPABILITY_LIST, 1);

    std::byte* writable = space_.writable().data();
    util::store_le16(writable + PCI_COMMAND, kCommandWritable);
    writable[PCI_CACHE_LINE_SIZE] = std::byte{0xff};
    writable[PCI_INTERRUPT_LINE] = std::byte{0xff};
    util::store_le16(space_.write_one_clears().data() + PCI_STATUS, kStatusErrors);
}

Result<> PciConfig::set_up_bars(const Hardware& hardware) {
    for (unsigned i = 0; i < kPciBars; ++i) {
        const uint32_t raw = space_.u32(bar_register(i));
        space_.set_u32(bar_register(i), 0);
        const uint64_t size = hardware.bar_bytes[i];
        if (size == 0) continue;
        Bar& bar = bars_[i];
        bar.is_io = (raw & PCI_BASE_ADDRESS_SPACE_IO) != 0;
        const uint32_t type_bits = bar.is_io
                                       ? PCI_BASE_ADDRESS_SPACE_IO
                                       : raw & ~static_cast<uint32_t>(PCI_BASE_ADDRESS_MEM_MASK);
        bar.is_64bit = !bar.is_io && (type_bits & PCI_BASE_ADDRESS_MEM_TYPE_64) != 0;
        bar.size = size;
        constexpr uint64_t kSmallestMemory = 16;
        constexpr uint64_t kSmallestIo = 4;
        const bool last = i == kPciBars - 1;
        if (!std::has_single_bit(size) || size < (bar.is_io ? kSmallestIo : kSmallestMemory) ||
            (bar.is_64bit ? last : size > UINT32_MAX)) {
            return make_error(ErrorKind::Protocol, "BAR {} of {:#x} bytes can't be programmed", i,
                              size);
        }
        if (bar.is_64bit && hardware.bar_bytes[i + 1] != 0) {
            return make_error(ErrorKind::Protocol, "BAR {} is the upper half of BAR {}", i + 1, i);
        }
        // All address bits above the size are the guest's; type and size must be the same there.
        const uint64_t address_bits = ~(size - 1);
        space_.set_u32(bar_register(i), type_bits);
        compare(bar_register(i), kBarBytes);
        std::byte* writable = space_.writable().data() + bar_register(i);
        util::store_le32(writable, static_cast<uint32_t>(address_bits));
        if (bar.is_64bit) {
            space_.set_u32(bar_register(++i), 0);
            compare(bar_register(i), kBarBytes);
            util::store_le32(writable + kBarBytes, static_cast<uint32_t>(address_bits >> 32));
        }
    }
    return {};
}

Result<> PciConfig::set_up_capabilities(const Hardware& hardware, VendorBytes vendor_bytes) {
    MIG_TRY(const auto capabilities, pci::walk_capabilities(image()));
    for (const pci::PciCapability& capability : capabilities) {
        constexpr size_t kIdAndNext = 2;
        constexpr size_t kVendorHeader = 3;
        emulate(capability.offset, kIdAndNext);
        // Most do not tell how long they are, so all up to the next one counts.
        size_t compared = capability.length;
        switch (capability.id) {
            case PCI_CAP_ID_MSIX:
                MIG_CHECK(set_up_msix(capability, hardware));
                compared = kMsixBytes;
                break;
            case PCI_CAP_ID_MSI:
                MIG_CHECK(set_up_msi(capability, hardware));
                compared = msi_->length();
                break;
            case PCI_CAP_ID_VNDR:
                if (vendor_bytes == VendorBytes::Ignored) compared = kVendorHeader;
                break;
            case PCI_CAP_ID_EXP:
            case PCI_CAP_ID_AF: MIG_CHECK(set_up_reset_bits(capability)); break;
            default: break;
        }
        compare(capability.offset, std::min<size_t>(compared, capability.length));
    }
    if (msi_ && msi_->maskable) {  // pending interrupts are no property of the device
        util::store_le32(space_.must_match().data() + msi_->pending(), 0);
    }
    MIG_TRY(const auto express, pci::walk_express_capabilities(image()));
    for (const pci::PciCapability& capability : express) {
        compare(capability.offset, capability.length);
    }
    return {};
}

Result<> PciConfig::set_up_reset_bits(const pci::PciCapability& capability) {
    const bool express = capability.id == PCI_CAP_ID_EXP;
    const size_t needed = express ? PCI_EXP_DEVSTA : PCI_AF_STATUS;
    if (capability.length < needed) {
        return make_error(ErrorKind::Protocol, "capability {:#x} at {:#x} has {} bytes only",
                          capability.id, capability.offset, capability.length);
    }
    if (express) {
        const uint32_t features = space_.u32(capability.offset + PCI_EXP_DEVCAP);
        if ((features & PCI_EXP_DEVCAP_FLR) == 0) return {};
        reset_bits_.push_back({capability.offset + PCI_EXP_DEVCTL + 1u,
                               static_cast<std::byte>(PCI_EXP_DEVCTL_BCR_FLR >> 8)});
    } else {
        if ((space_.u8(capability.offset + PCI_AF_CAP) & PCI_AF_CAP_FLR) == 0) return {};
        reset_bits_.push_back(
            {capability.offset + size_t{PCI_AF_CTRL}, static_cast<std::byte>(PCI_AF_CTRL_FLR)});
    }
    return {};
}

PciConfig::Effects PciConfig::guest_write(size_t offset, MutBytes value) {
    Effects effects;
    for (const ResetBit& bit : reset_bits_) {
        if (!overlaps(offset, value.size(), bit.offset, 1)) continue;
        std::byte& byte = value[bit.offset - offset];
        effects.reset = effects.reset || (byte & bit.mask) != std::byte{0};
        byte &= ~bit.mask;
    }
    space_.guest_write(offset, value);
    effects.command = overlaps(offset, value.size(), PCI_COMMAND, 2);
    effects.bars = overlaps(offset, value.size(), PCI_BASE_ADDRESS_0, kBarBytes * kPciBars);
    effects.interrupts = (msix_ && overlaps(offset, value.size(), msix_->capability, kMsixBytes)) ||
                         (msi_ && overlaps(offset, value.size(), msi_->capability, msi_->length()));
    return effects;
}

Result<> PciConfig::load(ConstBytes image) {
    MIG_CHECK(space_.load(image));
    msi_pending_ = msi_ && msi_->maskable ? space_.u32(msi_->pending()) : 0;
    return {};
}

void PciConfig::power_on() {
    // Never refused: whatever was loaded since had to match this image.
    [[maybe_unused]] const auto loaded = load(power_on_);
}

uint16_t PciConfig::command() const {
    return space_.u16(PCI_COMMAND) & kCommandWritable;
}

uint64_t PciConfig::bar_address(unsigned bar) const {
    uint64_t address = space_.u32(bar_register(bar));
    if (bars_[bar].is_64bit) {
        address |= static_cast<uint64_t>(space_.u32(bar_register(bar + 1))) << 32;
    }
    return address & ~(bars_[bar].size - 1);
}

std::vector<pci::PciDevice::MemoryBar> PciConfig::memory_bars() const {
    std::vector<pci::PciDevice::MemoryBar> out;
    if ((command() & PCI_COMMAND_MEMORY) == 0) return out;
    for (unsigned i = 0; i < kPciBars; ++i) {
        const Bar& bar = bars_[i];
        if (bar.size == 0 || bar.is_io) continue;
        const uint64_t address = bar_address(i);
        const uint64_t last = address + (bar.size - 1);
        // Zero is not programmed; up to the very end is the guest asking for the size.
        const uint64_t top = bar.is_64bit ? UINT64_MAX : UINT32_MAX;
        if (address == 0 || last < address || last >= top) continue;
        out.push_back({i, address, bar.size});
    }
    return out;
}

std::vector<pci::PciDevice::PortBar> PciConfig::port_bars() const {
    std::vector<pci::PciDevice::PortBar> out;
    if ((command() & PCI_COMMAND_IO) == 0) return out;
    for (unsigned i = 0; i < kPciBars; ++i) {
        const Bar& bar = bars_[i];
        if (bar.size == 0 || !bar.is_io) continue;
        // Zero is not programmed; the guest that asks for the size writes more than there are
        // ports.
        const uint64_t first = bar_address(i);
        constexpr uint64_t kPorts = uint64_t{UINT16_MAX} + 1;
        if (first == 0 || first >= kPorts || bar.size > kPorts - first) continue;
        out.push_back({i, static_cast<uint16_t>(first), static_cast<uint32_t>(bar.size)});
    }
    return out;
}

}  // namespace ferry::vfio
