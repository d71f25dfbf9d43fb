// SPDX-License-Identifier: BSD-2-Clause
// The test device's registers as a guest sees them, the memory behind BAR0, and the changes the
// device makes to its own state.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "hw/test-device-image.h"
#include "hw/test-device-pci.h"
#include "hw/test-device.h"
#include "util/clock.h"

namespace ferry::hw {

// How much is due at a rate. One thread at a time.
class TestDevicePacer {
 public:
    // `per_s` at most TestDeviceConfig::kMaxBytesPerS.
    explicit TestDevicePacer(uint64_t per_s) : per_s_(per_s) {}
    uint64_t per_s() const { return per_s_; }
    void start(util::Nanoseconds now);
    // Due since start() and not taken yet, in whole units.
    uint64_t take(util::Nanoseconds now, uint64_t unit);

 private:
    const uint64_t per_s_;
    util::Nanoseconds since_{};
    uint64_t taken_ = 0;
};

// One thread at a time. What starts DMA or an interrupt is stored here and done by others.
class TestDeviceRegisters {
 public:
    explicit TestDeviceRegisters(TestDeviceState& state) : state_(state) {}

    // A guest's accesses. `reg` is a multiple of 4; beyond the registers: zero, ignored.
    uint32_t read(uint32_t reg);
    void write(uint32_t reg, uint32_t value);

    uint32_t get(uint32_t reg) const { return words_[reg / sizeof(uint32_t)]; }
    void set(uint32_t reg, uint32_t value) { words_[reg / sizeof(uint32_t)] = value; }
    uint64_t get64(uint32_t reg) const { return get(reg) | uint64_t{get(reg + 4)} << 32; }
    void set64(uint32_t reg, uint64_t value);
    MutBytes ram() { return ram_; }

    // The device works: the next `bytes` (rounded up to words) of its state get new content.
    void change(uint64_t bytes);
    // State that something else wrote.
    void touched(uint64_t offset, uint64_t length);

    static constexpr uint64_t kImageBytes = test_device_reg::kEnd + test_device_reg::kRamBytes;
    std::vector<std::byte> save() const;
    void load(ConstBytes image);  // of kImageBytes
    void clear();

 private:
    bool state_word_at_offset() const;

    TestDeviceState& state_;
    std::array<uint32_t, test_device_reg::kEnd / sizeof(uint32_t)> words_{};
    std::array<std::byte, test_device_reg::kRamBytes> ram_{};
};

// What regions, DMA, sessions and the ticker share. The mutex guards all of it.
struct TestDeviceInsides {
    TestDeviceInsides(TestDeviceState memory, const TestDeviceConfig& config)
        : state(std::move(memory)), registers(state), config_space(config) {}

    std::mutex mutex;
    TestDeviceState state;
    TestDeviceRegisters registers;
    TestDeviceConfigSpace config_space;
};

}  // namespace ferry::hw
