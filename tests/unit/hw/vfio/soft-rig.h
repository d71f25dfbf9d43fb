// SPDX-License-Identifier: BSD-2-Clause
// A test device in this process with memory to write to, for the tests of this folder.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "hw/test-device.h"
#include "hw/vfio/container-soft.h"
#include "hw/vfio/device-io-soft.h"
#include "tests/conformance/device-io-suite.h"
#include "tests/conformance/test-device-driver.h"
#include "tests/support/test-env.h"

namespace ferry::test {

class SoftRig final : public DeviceUnderTest {
 public:
    using Wrap = std::function<std::unique_ptr<vfio::VfioDeviceIo>(
        std::unique_ptr<vfio::VfioDeviceIo>, util::Env&)>;

    explicit SoftRig(hw::TestDeviceConfig config, const Wrap& wrap = {}) {
        EXPECT_TRUE(container_.dma_map(kMemoryIova, memory_, vfio::MapAccess::ReadWrite));
        auto made = hw::TestDevice::create(std::move(config), env_.env, "dev");
        EXPECT_TRUE(made);
        device_ = made->get();
        io_ = std::make_unique<vfio::SoftDeviceIo>(std::move(*made), container_, env_.env, "dev");
        if (wrap) io_ = wrap(std::move(io_), env_.env);
        driver().enable_bus_master();
    }
    ~SoftRig() override { device_->stop_waiting(); }

    vfio::VfioDeviceIo& io() override { return *io_; }
    TestDeviceDriver driver() { return TestDeviceDriver(*io_); }
    hw::TestDevice& device() { return *device_; }
    vfio::SoftContainer& container() { return container_; }
    MutBytes memory() { return memory_; }
    util::Env& env() { return env_.env; }
    FakeClock& clock() { return env_.clock; }

    void fill_state(uint32_t seed) override { driver().fill(seed); }
    void change_state(uint32_t value) override { driver().write_state(0x10, value); }
    uint64_t state_digest() override { return device_->state_digest(); }
    void write_memory(system::Iova iova, uint64_t length) override {
        EXPECT_EQ(driver().dma(hw::test_device_reg::kDmaFill, iova, static_cast<uint32_t>(length),
                               0x77777777),
                  0);
    }
    void raise(uint32_t vector) override { driver().raise(vector); }

    void close() { io_.reset(); }

 private:
    TestEnv env_;
    std::vector<std::byte> memory_ = std::vector<std::byte>(kMemoryBytes);
    vfio::SoftContainer container_{"soft"};
    hw::TestDevice* device_ = nullptr;  // belongs to io_
    std::unique_ptr<vfio::VfioDeviceIo> io_;
};

// A device whose state is small enough for a test to move it often.
inline hw::TestDeviceConfig small(uint64_t state_bytes = 0x30000) {
    hw::TestDeviceConfig config;
    config.state_bytes = state_bytes;
    return config;
}

}  // namespace ferry::test
