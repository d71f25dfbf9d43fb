// SPDX-License-Identifier: BSD-2-Clause
// The suite of all device interfaces, over the kernel's calls with a test device behind them.
#include "hw/vfio/device-io-kernel.h"
#include "tests/fakes/bridge-kernel.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"

namespace ferry::test {
namespace {

using vfio::MigCaps;

class BridgedRig final : public DeviceUnderTest {
 public:
    explicit BridgedRig(MigCaps caps) : soft_(config_for(caps)) {
        auto created =
            vfio::create_kernel_device_io(bridge_, bridge_.device_file(), util::Registration());
        EXPECT_TRUE(created);
        io_ = std::move(*created);
    }

    vfio::VfioDeviceIo& io() override { return *io_; }
    void fill_state(uint32_t seed) override { TestDeviceDriver(*io_).fill(seed); }
    void change_state(uint32_t value) override { TestDeviceDriver(*io_).write_state(0x10, value); }
    uint64_t state_digest() override { return soft_.state_digest(); }
    void write_memory(system::Iova iova, uint64_t length) override {
        soft_.write_memory(iova, length);
    }
    void raise(uint32_t vector) override { TestDeviceDriver(*io_).raise(vector); }

 private:
    static hw::TestDeviceConfig config_for(MigCaps caps) {
        hw::TestDeviceConfig config;
        config.caps = caps;
        config.state_bytes = 0x31000;
        return config;
    }

    SoftRig soft_;
    BridgeKernel bridge_{soft_.io()};
    std::unique_ptr<vfio::VfioDeviceIo> io_;
};

DeviceIoParam bridged(std::string name, MigCaps caps) {
    return {std::move(name), caps, [caps] { return std::make_unique<BridgedRig>(caps); }};
}

INSTANTIATE_TEST_SUITE_P(Kernel, DeviceIoSuite,
                         testing::Values(bridged("StopCopy", kPlain), bridged("P2P", kP2P),
                                         bridged("PreCopy", kPreCopy), bridged("All", kAll)),
                         device_io_param_name);
INSTANTIATE_TEST_SUITE_P(Kernel, PrecopyDeviceIoSuite,
                         testing::Values(bridged("PreCopy", kPreCopy), bridged("All", kAll)),
                         device_io_param_name);

}  // namespace
}  // namespace ferry::test
