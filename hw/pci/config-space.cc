// SPDX-License-Identifier: BSD-2-Clause
#include "hw/pci/config-space.h"

#include <linux/pci_regs.h>

#include <algorithm>
#include <cassert>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::pci {

namespace {

constexpr size_t kFirstCapability = 0x40;
constexpr size_t kCapabilityHeader = 2;
constexpr size_t kExpressHeader = 4;

// Each capability ends where the next one in the space begins, wherever that is in the list.
void fill_lengths(std::vector<PciCapability>& capabilities, size_t end) {
    for (PciCapability& one : capabilities) {
        size_t next = end;
        for (const PciCapability& other : capabilities) {
            if (other.offset > one.offset) next = std::min<size_t>(next, other.offset);
        }
        one.length = static_cast<uint16_t>(next - one.offset);
    }
}

bool contains(const std::vector<PciCapability>& capabilities, size_t offset) {
    return std::ranges::any_of(capabilities,
                               [offset](const PciCapability& c) { return c.offset == offset; });
}

}  // namespace

ConfigSpace::ConfigSpace(std::vector<std::byte> image)
    : image_(std::move(image)),
      writable_(image_.size()),
      write_one_clears_(image_.size()),
      must_match_(image_.size()) {
    assert(image_.size() == kConfigBytes || image_.size() == kExpressConfigBytes);
}

uint16_t ConfigSpace::u16(size_t offset) const {
    return util::load_le16(image_.data() + offset);
}

uint32_t ConfigSpace::u32(size_t offset) const {
    return util::load_le32(image_.data() + offset);
}

void ConfigSpace::set_u16(size_t offset, uint16_t value) {
    util::store_le16(image_.data() + offset, value);
}

void ConfigSpace::set_u32(size_t offset, uint32_t value) {
    util::store_le32(image_.data() + offset, value);
}

void ConfigSpace::guest_write(size_t offset, ConstBytes value) {
    for (size_t i = 0; i < value.size(); ++i) {
        const size_t at = offset + i;
        image_[at] = (image_[at] & ~writable_[at]) | (value[i] & writable_[at]);
        image_[at] &= ~(value[i] & write_one_clears_[at]);
    }
}

Result<> ConfigSpace::load(ConstBytes image) {
    if (image.size() != image_.size()) {
        return make_error(ErrorKind::InvalidArgument, "a configuration space of {} bytes, not {}",
                          image.size(), image_.size());
    }
    for (size_t at = 0; at < image.size(); ++at) {
        const std::byte compared = must_match_[at] & ~writable_[at] & ~write_one_clears_[at];
        if (((image[at] ^ image_[at]) & compared) == std::byte{0}) continue;
        return make_error(ErrorKind::Protocol,
                          "configuration space differs at {:#x}: {:#04x} came, this device has "
                          "{:#04x} (must match {:#04x}, writable {:#04x}, write-1-clear {:#04x})",
                          at, image[at], image_[at], must_match_[at], writable_[at],
                          write_one_clears_[at]);
    }
    image_.assign(image.begin(), image.end());
    return {};
}

Result<std::vector<PciCapability>> walk_capabilities(ConstBytes config) {
    std::vector<PciCapability> out;
    if ((util::load_le16(config.data() + PCI_STATUS) & PCI_STATUS_CAP_LIST) == 0) return out;
    size_t pointer = static_cast<size_t>(config[PCI_CAPABILITY_LIST]) & ~size_t{3};
    while (pointer != 0) {
        if (pointer < kFirstCapability || pointer > kConfigBytes - kCapabilityHeader) {
            return make_error(ErrorKind::Protocol, "a capability at {:#x} of the config space",
                              pointer);
        }
        if (contains(out, pointer)) {
            return make_error(ErrorKind::Protocol, "the capability list loops at {:#x}", pointer);
        }
        out.push_back({static_cast<uint16_t>(config[pointer]), static_cast<uint16_t>(pointer), 0});
        pointer = static_cast<size_t>(config[pointer + 1]) & ~size_t{3};
    }
    fill_lengths(out, kConfigBytes);
    return out;
}

Result<std::vector<PciCapability>> walk_express_capabilities(ConstBytes config) {
    std::vector<PciCapability> out;
    if (config.size() < kExpressConfigBytes) return out;
    size_t pointer = kConfigBytes;
    while (pointer != 0) {
        if (pointer < kConfigBytes || pointer > kExpressConfigBytes - kExpressHeader) {
            return make_error(ErrorKind::Protocol, "an extended capability at {:#x}", pointer);
        }
        if (contains(out, pointer)) {
            return make_error(ErrorKind::Protocol, "the extended capability list loops at {:#x}",
                              pointer);
        }
        const uint32_t header = util::load_le32(config.data() + pointer);
        if (header == 0 || header == UINT32_MAX) break;  // "no capabilities", and a dead device
        out.push_back(
            {static_cast<uint16_t>(PCI_EXT_CAP_ID(header)), static_cast<uint16_t>(pointer), 0});
        pointer = PCI_EXT_CAP_NEXT(header);
    }
    fill_lengths(out, kExpressConfigBytes);
    return out;
}

}  // namespace ferry::pci
