// SPDX-License-Identifier: BSD-2-Clause
// The test device as a PCI function: configuration space with capabilities, regions, interrupts.
#pragma once

#include <cstdint>
#include <vector>

#include "hw/test-device.h"

namespace ferry::hw {

inline constexpr uint64_t kTestDeviceBar0Bytes = 0x4000;
inline constexpr uint64_t kTestDeviceBar2Bytes = 0x1000;  // MSI-X table and pending bits
inline constexpr uint32_t kTestDeviceTableBar = 2;

vfio::RegionInfo test_device_region(const TestDeviceConfig& config, uint32_t region);
vfio::IrqInfo test_device_irq(const TestDeviceConfig& config, uint32_t index);

// Configuration space as the driver offers it: read-only bits keep their value, a BAR its size.
// One thread at a time.
class TestDeviceConfigSpace {
 public:
    explicit TestDeviceConfigSpace(const TestDeviceConfig& config);
    void reset() { bytes_ = initial_; }
    // Within size().
    void read(uint64_t offset, MutBytes out) const;
    void write(uint64_t offset, ConstBytes in);
    bool bus_master() const;
    uint64_t size() const { return bytes_.size(); }

 private:
    void add_msix(const TestDeviceConfig& config);
    void add_vendor(const TestDeviceConfig& config);
    void add_express();
    void put(uint64_t offset, ConstBytes value);
    void put16(uint64_t offset, uint16_t value);
    void put32(uint64_t offset, uint32_t value);
    void allow(uint64_t offset, uint32_t writable_bits);

    std::vector<std::byte> initial_;
    std::vector<std::byte> writable_;
    std::vector<std::byte> bytes_;
};

}  // namespace ferry::hw
