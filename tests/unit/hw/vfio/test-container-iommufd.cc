// SPDX-License-Identifier: BSD-2-Clause
// Devices opened by their nodes into an address space of iommufd, and what its page tables say.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "hw/vfio/container-iommufd.h"
#include "hw/vfio/iommu-dirty-log.h"
#include "hw/vfio/iommufd-uapi.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/errno-of.h"

namespace ferry::vfio {
namespace {

using system::kPageSize;
using test::FakeVfioKernel;
namespace call = uapi::iommufd;

constexpr uint64_t kLowBytes = 2 << 20;
constexpr uint64_t kHighBytes = 4 << 20;
constexpr uint64_t kHighAt = 0x100000000;

class IommufdTest : public testing::Test {
 protected:
    IommufdTest() {
        auto* low = *memory_.add_block(*system::RamBlock::create_memfd("low", kLowBytes));
        auto* high = *memory_.add_block(*system::RamBlock::create_memfd("high", kHighBytes));
        EXPECT_TRUE(memory_.map(*low, 0, 0, kLowBytes));
        EXPECT_TRUE(memory_.map(*high, kHighAt, 0, kHighBytes));
    }
    ~IommufdTest() override { EXPECT_EQ(kernel_.faults, std::vector<std::string>{}); }

    std::unique_ptr<VfioDeviceIo> opened(std::string_view host) {
        auto device = host_.open_device(host);
        EXPECT_TRUE(device) << device.error().message();
        return device ? std::move(*device) : nullptr;
    }
    std::string failure(std::string_view host) {
        const auto device = host_.open_device(host);
        EXPECT_FALSE(device);
        EXPECT_EQ(kernel_.open_fds(), 0u);
        EXPECT_EQ(kernel_.iommufd().objects(), 0u);
        return device ? "" : device.error().message();
    }
    void behind_iommu(const std::string& name, int kind = 1, bool tracks = true) {
        kernel_.iommufd().iommus[name] = {.kind = kind, .tracks = tracks};
    }
    static std::set<uint64_t> pages_of(const util::Bitmap& bitmap) {
        std::set<uint64_t> pages;
        for (uint64_t bit = bitmap.find_set(0); bit < bitmap.size();
             bit = bitmap.find_set(bit + 1)) {
            pages.insert(bit);
        }
        return pages;
    }
    bool logged(const std::string& line) const {
        return std::ranges::find(kernel_.log, line) != kernel_.log.end();
    }

    FakeVfioKernel kernel_;
    test::FakeVfioDevice& one_ = kernel_.add_pci_device("0000:3b:00.2", 7);
    test::FakeVfioDevice& two_ = kernel_.add_pci_device("0000:5e:00.0", 12);
    test::FakeVfioDevice& soft_ = kernel_.add_device("ferry.0", 3);
    system::GuestMemory memory_;
    IommufdHost host_{kernel_, memory_, "iommufd0"};
};

TEST_F(IommufdTest, DeviceIsOpenedByItsNodeAndAllRamIsMappedOnce) {
    behind_iommu("0000:3b:00.2");
    behind_iommu("0000:5e:00.0");
    const auto one = opened("3b:00.2");
    const auto two = opened("0000:5e:00.0");
    ASSERT_TRUE(one && two);
    EXPECT_TRUE(logged("open(/dev/iommu)"));
    EXPECT_TRUE(logged("open(/dev/vfio/devices/vfio0)"));
    EXPECT_EQ(kernel_.iommufd().mapped_bytes(), kLowBytes + kHighBytes);
    EXPECT_EQ(host_.devices(), 2u);
    EXPECT_EQ(kernel_.iommufd().page_tables(), 1u);  // both are behind the same IOMMU
    EXPECT_EQ(one->iommu_dirty_log(), two->iommu_dirty_log());
    EXPECT_EQ(one->info()->num_regions, 9u);
}

TEST_F(IommufdTest, ClosingTheLastDeviceLeavesNothingBehind) {
    behind_iommu("0000:3b:00.2");
    auto device = opened("3b:00.2");
    kernel_.log.clear();
    device.reset();
    EXPECT_EQ(kernel_.log,
              (std::vector<std::string>{"close(device 0000:3b:00.2)", "close(iommufd)"}));
    EXPECT_EQ(kernel_.open_fds(), 0u);
    EXPECT_EQ(host_.container(), nullptr);
    EXPECT_TRUE(opened("3b:00.2"));  // and again
}

TEST_F(IommufdTest, DevicesOfDifferentIommusGetDifferentPageTables) {
    behind_iommu("0000:3b:00.2", 1);
    behind_iommu("0000:5e:00.0", 2);
    auto one = opened("3b:00.2");
    const auto two = opened("5e:00.0");
    EXPECT_EQ(kernel_.iommufd().page_tables(), 2u);
    EXPECT_NE(one->iommu_dirty_log(), two->iommu_dirty_log());
    one.reset();
    EXPECT_EQ(kernel_.iommufd().page_tables(), 1u);
}

TEST_F(IommufdTest, SoftwareDeviceHasNoPageTable) {
    const auto device = opened("/sys/bus/platform/devices/ferry.0");
    ASSERT_TRUE(device);
    EXPECT_EQ(kernel_.iommufd().page_tables(), 0u);
    EXPECT_TRUE(kernel_.iommufd().attached(soft_));
    EXPECT_EQ(device->iommu_dirty_log(), nullptr);
    EXPECT_TRUE(kernel_.dma_write(soft_, kHighAt, std::byte{7}));
    EXPECT_EQ(memory_.find_block("high")->host()[0], std::byte{7});
}

TEST_F(IommufdTest, IommuThatCannotTrackServesItsDeviceAllTheSame) {
    behind_iommu("0000:3b:00.2", 1, false);
    EXPECT_EQ(opened("3b:00.2")->iommu_dirty_log(), nullptr);
    // One that says that it can, and then can't.
    kernel_.iommufd().iommus["0000:5e:00.0"] = {.kind = 1, .tracks = false};
    kernel_.iommufd().errnums[call::kGetHwInfo] = EIO;
    const auto device = opened("5e:00.0");
    ASSERT_TRUE(device);
    EXPECT_EQ(device->iommu_dirty_log(), nullptr);
}

TEST_F(IommufdTest, PagesWrittenSinceTheLastQueryAreReportedOnce) {
    behind_iommu("0000:3b:00.2");
    const auto device = opened("3b:00.2");
    IommuDirtyLog* log = device->iommu_dirty_log();
    ASSERT_NE(log, nullptr);
    EXPECT_EQ(log->consent(), IommuDirtyLog::Consent::NotNeeded);
    util::Bitmap pages(kLowBytes / kPageSize);
    const DmaLogRange low{0, kLowBytes};
    EXPECT_FALSE(log->query(low, pages));  // not started: the kernel would say "nothing"
    ASSERT_TRUE(log->start());
    ASSERT_TRUE(log->start());
    EXPECT_TRUE(kernel_.dma_write(one_, 5 * kPageSize, std::byte{1}));
    ASSERT_TRUE(log->query(low, pages));
    EXPECT_EQ(pages_of(pages), (std::set<uint64_t>{5}));
    pages.clear_all();
    ASSERT_TRUE(log->query(low, pages));
    EXPECT_TRUE(pages.none());
    EXPECT_FALSE(log->query({kLowBytes, kPageSize}, pages));  // a hole
    EXPECT_FALSE(log->query({0, 2 * kLowBytes}, pages));
    ASSERT_TRUE(log->stop());
    EXPECT_FALSE(kernel_.iommufd().tracking());
}

TEST_F(IommufdTest, FailingQueryIsAnErrorAndNotAnEmptyBitmap) {
    behind_iommu("0000:3b:00.2");
    const auto device = opened("3b:00.2");
    IommuDirtyLog* log = device->iommu_dirty_log();
    ASSERT_TRUE(log->start());
    kernel_.iommufd().errnums[call::kGetDirtyBitmap] = EFAULT;
    util::Bitmap pages(kLowBytes / kPageSize);
    EXPECT_EQ(test::errno_of(log->query({0, kLowBytes}, pages)), EFAULT);
    kernel_.iommufd().errnums = {{call::kSetDirtyTracking, EIO}};
    EXPECT_EQ(test::errno_of(log->stop()), EIO);
}

TEST_F(IommufdTest, UnmappingAsksFirstAndWithoutClearing) {
    behind_iommu("0000:3b:00.2");
    const auto device = opened("3b:00.2");
    ASSERT_TRUE(device->iommu_dirty_log()->start());
    EXPECT_TRUE(kernel_.dma_write(one_, 9 * kPageSize, std::byte{1}));
    util::Bitmap written(kLowBytes / kPageSize);
    kernel_.log.clear();
    ASSERT_TRUE(host_.container()->dma_unmap_written(0, kLowBytes, written));
    EXPECT_EQ(pages_of(written), (std::set<uint64_t>{9}));
    EXPECT_EQ(kernel_.iommufd().dirty_queries, (std::vector<std::string>{"0x0+0x200000 no-clear"}));
    EXPECT_EQ(kernel_.iommufd().mapped_bytes(), kHighBytes);
}

TEST_F(IommufdTest, UnmappingThatCannotTellUnmapsAndSaysEverything) {
    behind_iommu("0000:3b:00.2");
    const auto device = opened("3b:00.2");
    ASSERT_TRUE(device->iommu_dirty_log()->start());
    kernel_.iommufd().errnums[call::kGetDirtyBitmap] = EIO;
    util::Bitmap written(kLowBytes / kPageSize);
    ASSERT_TRUE(host_.container()->dma_unmap_written(0, kLowBytes, written));
    EXPECT_EQ(written.count(), written.size());
    EXPECT_EQ(kernel_.iommufd().mapped_bytes(), kHighBytes);
    // Nor does anybody know what a device without a page table wrote.
    const auto soft = opened("/sys/bus/platform/devices/ferry.0");
    kernel_.iommufd().errnums.clear();
    util::Bitmap high(kHighBytes / kPageSize);
    ASSERT_TRUE(host_.container()->dma_unmap_written(kHighAt, kHighBytes, high));
    EXPECT_EQ(high.count(), high.size());
}

TEST_F(IommufdTest, UnmappingThatFailsIsAnError) {
    behind_iommu("0000:3b:00.2");
    const auto device = opened("3b:00.2");
    kernel_.iommufd().errnums[call::kIoasUnmap] = EBUSY;
    util::Bitmap written(kLowBytes / kPageSize);
    EXPECT_EQ(test::errno_of(host_.container()->dma_unmap_written(0, kLowBytes, written)), EBUSY);
    EXPECT_EQ(test::errno_of(host_.container()->dma_unmap(0, kLowBytes)), EBUSY);
    EXPECT_FALSE(host_.container()->dma_unmap(1, kPageSize));
}

TEST_F(IommufdTest, EveryFailingCallOfTheFirstDeviceLeavesNothing) {
    behind_iommu("0000:3b:00.2");
    const unsigned before = kernel_.calls();
    opened("3b:00.2").reset();
    const unsigned calls = kernel_.calls() - before;
    for (unsigned call = 1; call <= calls; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        // Some failures do not keep the device away: of asking whether its IOMMU tracks, and those
        // of the end, where what can't be destroyed goes with the descriptor.
        (void)host_.open_device("3b:00.2");
        EXPECT_EQ(kernel_.open_fds(), 0u) << "call " << call;
        EXPECT_EQ(kernel_.iommufd().objects(), 0u) << "call " << call;
        EXPECT_EQ(host_.devices(), 0u) << "call " << call;
    }
    EXPECT_TRUE(opened("3b:00.2"));
}

TEST_F(IommufdTest, EveryFailingCallOfASecondDeviceLeavesTheFirstAlone) {
    behind_iommu("0000:3b:00.2");
    behind_iommu("0000:5e:00.0", 2);
    const auto first = opened("3b:00.2");
    const size_t fds = kernel_.open_fds();
    const size_t objects = kernel_.iommufd().objects();
    constexpr unsigned kMoreThanItTakes = 40;
    for (unsigned call = 1; call <= kMoreThanItTakes; ++call) {
        kernel_.fail_call(kernel_.calls() + call, EIO);
        (void)host_.open_device("5e:00.0");
        EXPECT_EQ(kernel_.open_fds(), fds) << "call " << call;
        // A page table that could not be destroyed waits for the end of iommufd.
        EXPECT_LE(kernel_.iommufd().objects(), objects + 1) << "call " << call;
        EXPECT_EQ(kernel_.iommufd().mapped_bytes(), kLowBytes + kHighBytes);
        EXPECT_TRUE(kernel_.iommufd().attached(one_));
    }
}

TEST_F(IommufdTest, MemoryThatCannotBePinnedIsUnmappedAndTheDeviceDetached) {
    behind_iommu("0000:3b:00.2");
    kernel_.iommufd().map_limit_bytes = kLowBytes + 1;
    const std::string text = failure("3b:00.2");
    EXPECT_NE(text.find("locked memory"), std::string::npos) << text;
    EXPECT_NE(text.find("'high'"), std::string::npos) << text;
    EXPECT_NE(text.find("device 3b:00.2: iommufd 'iommufd0'"), std::string::npos) << text;
    EXPECT_TRUE(logged("ioas unmap 0x0+0x200000"));
    EXPECT_TRUE(logged("detach 0000:3b:00.2"));
}

TEST_F(IommufdTest, ErrorsSayWhatTheAdministratorCanDo) {
    EXPECT_NE(failure("3b:00").find("neither a PCI address"), std::string::npos);
    EXPECT_NE(failure("0000:ff:00.0").find("bind it to vfio-pci"), std::string::npos);
    kernel_.has_device_nodes = false;
    EXPECT_NE(failure("3b:00.2").find("CONFIG_VFIO_DEVICE_CDEV"), std::string::npos);
    kernel_.has_device_nodes = true;
    kernel_.has_iommufd = false;
    EXPECT_NE(failure("3b:00.2").find("modprobe iommufd"), std::string::npos);
    kernel_.has_iommufd = true;
    const std::map<int, std::string> bind = {
        {EBUSY, "group is open"}, {EINVAL, "in use"}, {EBADFD, "no iommufd"}, {EIO, "BIND"}};
    for (const auto& [errnum, words] : bind) {
        kernel_.iommufd().errnums = {{uapi::kDeviceBindIommufd, errnum}};
        const std::string text = failure("3b:00.2");
        EXPECT_NE(text.find(words), std::string::npos) << text;
    }
}

TEST_F(IommufdTest, HandedDescriptorsAreUsedAndTheOneOfIommufdStays) {
    behind_iommu("0000:3b:00.2");
    IommufdHost host(kernel_, memory_, "given",
                     KernelFile(kernel_, kernel_.hand_over("/dev/iommu")));
    {
        auto device =
            host.adopt_device(KernelFile(kernel_, kernel_.hand_over("/dev/vfio/devices/vfio0")));
        ASSERT_TRUE(device) << device.error().message();
        EXPECT_EQ(kernel_.open_fds(), 2u);
        EXPECT_FALSE(logged("open(/dev/iommu)"));
    }
    EXPECT_EQ(kernel_.open_fds(), 1u);
    EXPECT_EQ(kernel_.iommufd().objects(), 0u);
}

TEST_F(IommufdTest, DescriptorsOfOtherThingsAreRefused) {
    auto group = host_.adopt_device(KernelFile(kernel_, kernel_.hand_over("/dev/vfio/7")));
    EXPECT_FALSE(group);
    IommufdHost host(kernel_, memory_, "given",
                     KernelFile(kernel_, kernel_.hand_over("/dev/vfio/vfio")));
    EXPECT_FALSE(host.open_device("3b:00.2"));
    EXPECT_EQ(kernel_.open_fds(), 1u);
}

}  // namespace
}  // namespace ferry::vfio
