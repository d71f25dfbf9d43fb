// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "hw/vfio/container-legacy.h"
#include "tests/fakes/fake-vfio-kernel.h"

namespace ferry::vfio {
namespace {

using test::FakeVfioKernel;

constexpr uint64_t kMiB = 1 << 20;

class LegacyContainer : public testing::Test {
 protected:
    LegacyContainer() {
        kernel_.add_pci_device("0000:3b:00.2", 7);
        kernel_.add_pci_device("0000:3b:00.3", 7);
        kernel_.add_pci_device("0000:5e:00.0", 12);
        kernel_.add_device("ferry.0", 3);
        auto* low = *memory_.add_block(*system::RamBlock::create_memfd("low", 2 * kMiB));
        auto* high = *memory_.add_block(*system::RamBlock::create_memfd("high", 4 * kMiB));
        EXPECT_TRUE(memory_.map(*low, 0, 0, 2 * kMiB));
        EXPECT_TRUE(memory_.map(*high, 0x100000000, 0, 4 * kMiB));
    }
    std::string failure(std::string_view host) {
        const auto opened = host_.open_device(host);
        EXPECT_FALSE(opened);
        EXPECT_EQ(kernel_.open_fds(), 0u);
        EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
        return opened ? "" : opened.error().message();
    }
    bool logged(const std::string& line) const {
        return std::ranges::find(kernel_.log, line) != kernel_.log.end();
    }

    FakeVfioKernel kernel_;
    system::GuestMemory memory_;
    VfioKernelHost host_{kernel_, memory_};
};

TEST_F(LegacyContainer, NonsenseIsNoDevice) {
    for (const char* host :
         {"", "/", "3b:00", "0000:3b:00.9", "zzzz:3b:00.2", "../etc", "3b:00.2x"}) {
        EXPECT_NE(failure(host).find("neither a PCI address"), std::string::npos) << host;
    }
}

TEST_F(LegacyContainer, UnknownDeviceHintsAtTheIommu) {
    EXPECT_NE(failure("0000:ff:00.0").find("is the IOMMU on"), std::string::npos);
}

TEST_F(LegacyContainer, GroupThatIsNotViableSaysWhatToBind) {
    kernel_.group_viable[7] = false;
    EXPECT_NE(failure("3b:00.2").find("/sys/kernel/iommu_groups/7/devices"), std::string::npos);
}

TEST_F(LegacyContainer, GroupInUseSaysSo) {
    kernel_.group_open_errnum[7] = EBUSY;
    EXPECT_NE(failure("3b:00.2").find("in use by another process"), std::string::npos);
}

TEST_F(LegacyContainer, UnboundDeviceNamesTheDriver) {
    kernel_.group_open_errnum[7] = ENOENT;
    EXPECT_NE(failure("3b:00.2").find("vfio-pci"), std::string::npos);
}

TEST_F(LegacyContainer, MissingInterruptRemappingNamesTheParameter) {
    kernel_.set_iommu_errnum = EPERM;
    EXPECT_NE(failure("3b:00.2").find("allow_unsafe_interrupts"), std::string::npos);
}

TEST_F(LegacyContainer, MissingContainerNamesTheModule) {
    kernel_.fail_call(2, ENOENT);  // behind the readlink
    EXPECT_NE(failure("3b:00.2").find("modprobe vfio-pci"), std::string::npos);
}

TEST_F(LegacyContainer, ForeignKernelInterfaceIsRefused) {
    kernel_.api_version = 1;
    EXPECT_NE(failure("3b:00.2").find("version 1"), std::string::npos);
    kernel_.api_version = 0;
    kernel_.has_type1v2 = false;
    EXPECT_NE(failure("3b:00.2").find("vfio_iommu_type1"), std::string::npos);
}

TEST_F(LegacyContainer, MemoryThatCannotBePinnedIsUnmappedAgain) {
    kernel_.type1().map_limit_bytes = 3 * kMiB;
    const std::string text = failure("3b:00.2");
    EXPECT_NE(text.find("locked memory"), std::string::npos) << text;
    EXPECT_NE(text.find("'high'"), std::string::npos) << text;
    EXPECT_TRUE(logged("unmap 0x0+0x200000"));
}

TEST_F(LegacyContainer, EveryFailingCallOfASecondGroupLeavesTheFirstAlone) {
    auto first = host_.open_device("3b:00.2");
    ASSERT_TRUE(first);
    const size_t fds = kernel_.open_fds();
    for (unsigned call = 1;; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        auto second = host_.open_device("5e:00.0");
        if (second) break;
        EXPECT_EQ(kernel_.open_fds(), fds) << "call " << call;
        EXPECT_EQ(kernel_.type1().mapped_bytes(), 6 * kMiB);
    }
    EXPECT_EQ(kernel_.open_fds(), fds);
    EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
}

TEST_F(LegacyContainer, AllRamIsMappedOnce) {
    auto first = host_.open_device("0000:3b:00.2");
    auto second = host_.open_device("0000:5e:00.0");
    ASSERT_TRUE(first && second);
    EXPECT_EQ(kernel_.type1().mapped_ranges(), 2u);
    EXPECT_EQ(kernel_.type1().mapped_bytes(), 6 * kMiB);
    EXPECT_TRUE(logged("map 0x100000000+0x400000"));
}

TEST_F(LegacyContainer, DevicesOfOneGroupShareIt) {
    auto first = host_.open_device("3b:00.2");
    auto second = host_.open_device("3b:00.3");
    ASSERT_TRUE(first && second);
    EXPECT_EQ(std::ranges::count(kernel_.log, "open(/dev/vfio/7)"), 1);
    first->reset();
    EXPECT_FALSE(logged("close(group 7)"));
    second->reset();
    EXPECT_TRUE(logged("close(group 7)"));
}

TEST_F(LegacyContainer, ClosesDeviceThenGroupThenContainer) {
    auto device = host_.open_device("3b:00.2");
    ASSERT_TRUE(device);
    EXPECT_NE(host_.container(), nullptr);
    kernel_.log.clear();
    device->reset();
    const std::vector<std::string> order = {"close(device 0000:3b:00.2)", "close(group 7)",
                                            "close(container)"};
    EXPECT_EQ(kernel_.log, order);
    EXPECT_EQ(host_.container(), nullptr);
    EXPECT_EQ(kernel_.open_fds(), 0u);
}

TEST_F(LegacyContainer, ReopensAfterTheLastDeviceLeft) {
    host_.open_device("3b:00.2")->reset();
    auto again = host_.open_device("3b:00.2");
    ASSERT_TRUE(again);
    EXPECT_EQ(kernel_.type1().mapped_bytes(), 6 * kMiB);
}

TEST_F(LegacyContainer, DeviceIsNamedByItsPathsLastComponent) {
    auto device = host_.open_device("/sys/bus/platform/devices/ferry.0/");
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_TRUE(logged("open(device ferry.0)"));
}

TEST_F(LegacyContainer, UnalignedRangesNeverReachTheKernel) {
    auto device = host_.open_device("3b:00.2");
    ASSERT_TRUE(device);
    DmaContainer& container = *host_.container();
    const unsigned before = kernel_.calls();
    const MutBytes host = memory_.blocks()[0]->host();
    EXPECT_FALSE(container.dma_map(0x800, host, MapAccess::ReadWrite));
    EXPECT_FALSE(container.dma_map(0x1000, host.subspan(1, 4096), MapAccess::ReadWrite));
    EXPECT_FALSE(container.dma_map(UINT64_MAX - 4095, host.first(8192), MapAccess::ReadWrite));
    EXPECT_FALSE(container.dma_unmap(0x1000, 0));
    EXPECT_EQ(kernel_.calls(), before);
}

TEST_F(LegacyContainer, UnmappingWhatIsNotMappedIsAnError) {
    auto device = host_.open_device("3b:00.2");
    ASSERT_TRUE(device);
    const auto unmapped = host_.container()->dma_unmap(0x40000000, 4096);
    ASSERT_FALSE(unmapped);
    EXPECT_EQ(unmapped.error().kind(), ErrorKind::InvalidState);
}

}  // namespace
}  // namespace ferry::vfio
