// SPDX-License-Identifier: BSD-2-Clause
#include "hw/test-device-pci.h"

#include <algorithm>

#include "util/wire.h"

namespace ferry::hw {

namespace {

// PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification, chapter 7.
constexpr uint64_t kVendorId = 0x00, kDeviceId = 0x02, kCommand = 0x04, kStatus = 0x06,
                   kRevision = 0x08, kClass = 0x0a, kCacheLine = 0x0c, kBar0 = 0x10, kBar2 = 0x18,
                   kSubsystemVendor = 0x2c, kSubsystemId = 0x2e, kCapabilities = 0x34,
                   kInterruptLine = 0x3c;
constexpr uint32_t kCommandMemory = 0x2, kCommandMaster = 0x4, kCommandNoIntx = 0x400;
constexpr uint16_t kStatusCapabilities = 0x10;
constexpr uint16_t kClassOther = 0xff00;
constexpr uint16_t kPinIntA = 1;

// The kernel test device has the same ones, so that one guest driver knows both.
constexpr uint16_t kTestVendor = 0xfe44, kTestDevice = 0x0001;

constexpr uint64_t kMsix = 0x40, kVendor = 0x50, kExpress = 0x60;
constexpr uint8_t kMsixId = 0x11, kVendorIdCapability = 0x09, kExpressId = 0x10;
constexpr uint32_t kMsixEnableAndMask = 0xc000'0000;  // as bits of the capability's first dword
constexpr uint32_t kMsixPendingOffset = 0x800;
constexpr uint8_t kVendorCapabilityBytes = 0x10;
constexpr uint16_t kExpressEndpointV2 = 0x0002;

constexpr uint64_t kConventionalBytes = 256, kExpressBytes = 4096;

}  // namespace

vfio::RegionInfo test_device_region(const TestDeviceConfig& config, uint32_t region) {
    uint64_t size = 0;
    if (region == vfio::pci_region::kBar0) size = kTestDeviceBar0Bytes;
    if (region == kTestDeviceTableBar) size = kTestDeviceBar2Bytes;
    if (region == vfio::pci_region::kConfig) {
        size = config.bus == TestDeviceConfig::Bus::Pcie ? kExpressBytes : kConventionalBytes;
    }
    return {.size = size, .readable = size != 0, .writable = size != 0};
}

vfio::IrqInfo test_device_irq(const TestDeviceConfig& config, uint32_t index) {
    if (index == vfio::pci_irq::kIntx && config.pin != TestDeviceConfig::Pin::None) {
        return {.count = 1, .eventfd = true, .maskable = true, .automasked = true};
    }
    if (index != vfio::pci_irq::kMsix) return {};
    return {.count = config.vectors, .eventfd = true, .noresize = true};
}

TestDeviceConfigSpace::TestDeviceConfigSpace(const TestDeviceConfig& config)
    : initial_(test_device_region(config, vfio::pci_region::kConfig).size),
      writable_(initial_.size()) {
    put16(kVendorId, kTestVendor);
    put16(kDeviceId, kTestDevice);
    put16(kStatus, kStatusCapabilities);
    put16(kRevision, 1);
    put16(kClass, kClassOther);
    put16(kSubsystemVendor, kTestVendor);
    put16(kSubsystemId, kTestDevice);
    put16(kCapabilities, static_cast<uint16_t>(kMsix));
    if (config.pin != TestDeviceConfig::Pin::None) put16(kInterruptLine, kPinIntA << 8);
    allow(kCommand, kCommandMemory | kCommandMaster | kCommandNoIntx);
    allow(kCacheLine, 0xffff);  // and the latency timer
    allow(kInterruptLine, 0xff);
    // The low bits stay zero: that tells the size, and that it is 32-bit memory.
    allow(kBar0, static_cast<uint32_t>(-kTestDeviceBar0Bytes));
    allow(kBar2, static_cast<uint32_t>(-kTestDeviceBar2Bytes));
    add_msix(config);
    add_vendor(config);
    if (config.bus == TestDeviceConfig::Bus::Pcie) add_express();
    bytes_ = initial_;
}

void TestDeviceConfigSpace::add_msix(const TestDeviceConfig& config) {
    put16(kMsix, static_cast<uint16_t>(kMsixId | kVendor << 8));
    put16(kMsix + 2, static_cast<uint16_t>(config.vectors - 1));
    put32(kMsix + 4, kTestDeviceTableBar);
    put32(kMsix + 8, kTestDeviceTableBar | kMsixPendingOffset);
    allow(kMsix, kMsixEnableAndMask);
}

void TestDeviceConfigSpace::add_vendor(const TestDeviceConfig& config) {
    const bool express = config.bus == TestDeviceConfig::Bus::Pcie;
    put16(kVendor, static_cast<uint16_t>(kVendorIdCapability | (express ? kExpress : 0) << 8));
    put16(kVendor + 2, kVendorCapabilityBytes);
    put(kVendor + 4,
        bytes_of(config.vendor_data)
            .first(std::min(config.vendor_data.size(), TestDeviceConfig::kMaxVendorData)));
}

void TestDeviceConfigSpace::add_express() {
    put16(kExpress, kExpressId);
    put16(kExpress + 2, kExpressEndpointV2);
    // No extended capabilities: the first header at 256 is zero.
}

void TestDeviceConfigSpace::put(uint64_t offset, ConstBytes value) {
    std::ranges::copy(value, initial_.begin() + static_cast<ptrdiff_t>(offset));
}

void TestDeviceConfigSpace::put16(uint64_t offset, uint16_t value) {
    util::store_le16(initial_.data() + offset, value);
}

void TestDeviceConfigSpace::put32(uint64_t offset, uint32_t value) {
    util::store_le32(initial_.data() + offset, value);
}

void TestDeviceConfigSpace::allow(uint64_t offset, uint32_t writable_bits) {
    util::store_le32(writable_.data() + offset, writable_bits);
}

void TestDeviceConfigSpace::read(uint64_t offset, MutBytes out) const {
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
}

void TestDeviceConfigSpace::write(uint64_t offset, ConstBytes in) {
    for (size_t i = 0; i < in.size(); ++i) {
        const std::byte mask = writable_[offset + i];
        bytes_[offset + i] = (bytes_[offset + i] & ~mask) | (in[i] & mask);
    }
}

bool TestDeviceConfigSpace::bus_master() const {
    return (util::load_le16(bytes_.data() + kCommand) & kCommandMaster) != 0;
}

}  // namespace ferry::hw
