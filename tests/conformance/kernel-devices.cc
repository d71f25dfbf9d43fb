// SPDX-License-Identifier: BSD-2-Clause
// The suite of all device interfaces, over real devices of the kernel: ferry-vfio-testdev's ferry.0
// and ferry.1 (tests/kernel). A program of its own, run in the emulated kernel:
//
//   vfio-kernel-conformance [--gtest_...]     exit status 77 where there are no such devices
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "hw/vfio/container-legacy.h"
#include "tests/conformance/device-io-suite.h"
#include "tests/conformance/test-device-driver.h"
#include "util/try.h"

namespace ferry::test {
namespace {

using vfio::MigCaps;

constexpr unsigned kDevices = 2;

std::string device_path(unsigned number) {
    return fmt::format("/sys/bus/platform/devices/ferry.{}", number);
}

void set_knob(unsigned device, const std::string& name, uint64_t value) {
    std::ofstream(device_path(device) + "/" + name) << value << std::endl;
}

// The flags that the driver reports.
uint64_t flags_of(MigCaps caps) {
    return (caps.stop_copy ? 1u : 0u) | (caps.p2p ? 2u : 0u) | (caps.pre_copy ? 4u : 0u);
}

// Whichever of the devices is free, with a VM's memory.
class KernelRig final : public DeviceUnderTest {
 public:
    explicit KernelRig(MigCaps caps) {
        auto block = system::RamBlock::create_memfd("ram", kMemoryBytes);
        EXPECT_TRUE(block);
        auto* ram = *memory_.add_block(std::move(*block));
        EXPECT_TRUE(memory_.map(*ram, kMemoryIova, 0, kMemoryBytes));
        for (unsigned number = 0; number < kDevices && !io_; ++number) {
            set_knob(number, "mig_flags", flags_of(caps));  // ignored while it is open
            constexpr uint64_t kStateBytes = 0x31000;
            set_knob(number, "state_bytes", kStateBytes);
            auto opened = host_.open_device(device_path(number));
            if (opened) io_ = std::move(*opened);
        }
        if (!io_) throw std::runtime_error("no device is free");
        driver().enable_bus_master();
    }
    ~KernelRig() override { io_.reset(); }

    vfio::VfioDeviceIo& io() override { return *io_; }
    void fill_state(uint32_t seed) override { driver().fill(seed); }
    void change_state(uint32_t value) override { driver().write_state(0x10, value); }
    uint64_t state_digest() override { return driver().digest(); }
    void write_memory(system::Iova iova, uint64_t length) override {
        EXPECT_EQ(driver().dma(hw::test_device_reg::kDmaFill, iova, static_cast<uint32_t>(length),
                               0x77777777),
                  0);
    }
    void raise(uint32_t vector) override { driver().raise(vector); }

 private:
    TestDeviceDriver driver() { return TestDeviceDriver(*io_); }

    vfio::SyscallKernel kernel_;
    system::GuestMemory memory_;
    vfio::VfioKernelHost host_{kernel_, memory_};
    std::unique_ptr<vfio::VfioDeviceIo> io_;
};

DeviceIoParam real(std::string name, MigCaps caps) {
    return {std::move(name), caps, [caps] { return std::make_unique<KernelRig>(caps); }};
}

constexpr MigCaps kPlain{.stop_copy = true};
constexpr MigCaps kP2P{.stop_copy = true, .p2p = true};
constexpr MigCaps kPreCopy{.stop_copy = true, .pre_copy = true};
constexpr MigCaps kAll{.stop_copy = true, .p2p = true, .pre_copy = true};

INSTANTIATE_TEST_SUITE_P(RealKernel, DeviceIoSuite,
                         testing::Values(real("StopCopy", kPlain), real("P2P", kP2P),
                                         real("PreCopy", kPreCopy), real("All", kAll)),
                         device_io_param_name);
INSTANTIATE_TEST_SUITE_P(RealKernel, PrecopyDeviceIoSuite,
                         testing::Values(real("PreCopy", kPreCopy), real("All", kAll)),
                         device_io_param_name);

}  // namespace
}  // namespace ferry::test

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    ferry::vfio::SyscallKernel kernel;
    for (unsigned number = 0; number < ferry::test::kDevices; ++number) {
        const auto link = kernel.readlink(ferry::test::device_path(number) + "/iommu_group");
        if (link) continue;
        constexpr int kSkipped = 77;
        std::cout << "SKIP " << link.error().message() << "\n";
        return kSkipped;
    }
    return RUN_ALL_TESTS();
}
