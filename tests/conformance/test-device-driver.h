// SPDX-License-Identifier: BSD-2-Clause
// What a guest's driver of the test device does, through BAR0. The in-process test device and the
// kernel one understand it both.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

#include "hw/test-device.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/wire.h"

namespace ferry::test {

class TestDeviceDriver {
 public:
    explicit TestDeviceDriver(vfio::VfioDeviceIo& io) : io_(io) {}

    uint32_t get(uint32_t reg) {
        std::array<std::byte, 4> raw{};
        const auto read = io_.region_read(vfio::pci_region::kBar0, reg, raw);
        EXPECT_TRUE(read) << read.error().message();
        return util::load_le32(raw.data());
    }
    void set(uint32_t reg, uint32_t value) {
        std::array<std::byte, 4> raw{};
        util::store_le32(raw.data(), value);
        const auto written = io_.region_write(vfio::pci_region::kBar0, reg, raw);
        EXPECT_TRUE(written) << written.error().message();
    }
    uint64_t get64(uint32_t reg) {
        const uint32_t low = get(reg);
        return low | uint64_t{get(reg + 4)} << 32;
    }
    void set64(uint32_t reg, uint64_t value) {
        set(reg, static_cast<uint32_t>(value));
        set(reg + 4, static_cast<uint32_t>(value >> 32));
    }

    void enable_bus_master() {
        constexpr uint64_t kCommand = 4;
        const std::array<std::byte, 2> memory_and_master = {std::byte{6}, std::byte{0}};
        EXPECT_TRUE(io_.region_write(vfio::pci_region::kConfig, kCommand, memory_and_master));
    }
    void fill(uint32_t seed) { set(hw::test_device_reg::kFill, seed); }
    uint64_t digest() { return get64(hw::test_device_reg::kDigest); }
    void write_state(uint32_t offset, uint32_t value) {
        set(hw::test_device_reg::kStateOffset, offset);
        set(hw::test_device_reg::kStateData, value);
    }
    uint32_t read_state(uint32_t offset) {
        set(hw::test_device_reg::kStateOffset, offset);
        return get(hw::test_device_reg::kStateData);
    }
    // The outcome: an errno, or 0.
    uint32_t dma(uint32_t command, system::Iova iova, uint32_t bytes, uint32_t value = 0) {
        set64(hw::test_device_reg::kDmaIova, iova);
        set(hw::test_device_reg::kDmaBytes, bytes);
        set(hw::test_device_reg::kDmaValue, value);
        set(hw::test_device_reg::kDmaCommand, command);
        return get(hw::test_device_reg::kDmaStatus);
    }
    void raise(uint32_t vector) { set(hw::test_device_reg::kIrqRaise, vector); }

 private:
    vfio::VfioDeviceIo& io_;
};

}  // namespace ferry::test
