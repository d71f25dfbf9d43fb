// SPDX-License-Identifier: BSD-2-Clause
// The dirty pages of a type1 container: what the kernel can say, and when it is not believed.
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "hw/vfio/capability-chain.h"
#include "hw/vfio/container-legacy.h"
#include "hw/vfio/iommu-dirty-log.h"
#include "hw/vfio/type1-info.h"
#include "hw/vfio/uapi.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/errno-of.h"
#include "util/try.h"

namespace ferry::vfio {
namespace {

using system::kPageSize;
using test::FakeVfioKernel;

constexpr uint64_t kRamPages = 512;
constexpr uint64_t kHighRam = 0x100000000;

std::set<uint64_t> set_bits(const util::Bitmap& bitmap) {
    std::set<uint64_t> bits;
    for (uint64_t bit = bitmap.find_set(0); bit < bitmap.size(); bit = bitmap.find_set(bit + 1)) {
        bits.insert(bit);
    }
    return bits;
}

class Type1Log : public testing::Test {
 protected:
    Type1Log() {
        auto* low =
            *memory_.add_block(*system::RamBlock::create_memfd("low", kRamPages * kPageSize));
        auto* high =
            *memory_.add_block(*system::RamBlock::create_memfd("high", kRamPages * kPageSize));
        EXPECT_TRUE(memory_.map(*low, 0, 0, kRamPages * kPageSize));
        EXPECT_TRUE(memory_.map(*high, kHighRam, 0, kRamPages * kPageSize));
    }
    ~Type1Log() override { EXPECT_EQ(kernel_.faults, std::vector<std::string>{}); }

    IommuDirtyLog* open() {
        auto opened = host_.open_device("/sys/bus/platform/devices/ferry.0");
        EXPECT_TRUE(opened) << opened.error().message();
        if (!opened) return nullptr;
        io_ = std::move(*opened);
        return io_->iommu_dirty_log();
    }
    // What the log says of one of the two blocks.
    Result<std::set<uint64_t>> ask(IommuDirtyLog& log, uint64_t iova = 0) {
        util::Bitmap pages(kRamPages);
        MIG_CHECK(log.query({iova, kRamPages * kPageSize}, pages));
        return set_bits(pages);
    }
    void write(uint64_t page, uint64_t base = 0) {
        EXPECT_TRUE(kernel_.dma_write(device_, base + page * kPageSize, std::byte{1}));
    }

    FakeVfioKernel kernel_;
    test::FakeVfioDevice& device_ = kernel_.add_device("ferry.0", 3);
    system::GuestMemory memory_;
    VfioKernelHost host_{kernel_, memory_};
    std::unique_ptr<VfioDeviceIo> io_;
};

TEST_F(Type1Log, PagesWrittenSinceTheLastQueryAreReportedOnce) {
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    EXPECT_EQ(log->consent(), IommuDirtyLog::Consent::Needed);
    write(7);  // before the start: nobody's business
    ASSERT_TRUE(log->start());
    write(3);
    write(511);
    write(64, kHighRam);
    EXPECT_EQ(*ask(*log), (std::set<uint64_t>{3, 511}));
    EXPECT_EQ(*ask(*log, kHighRam), (std::set<uint64_t>{64}));
    EXPECT_EQ(*ask(*log), (std::set<uint64_t>{}));
    ASSERT_TRUE(log->stop());
    EXPECT_FALSE(kernel_.type1().tracking());
}

TEST_F(Type1Log, AMappingLargerThanTheKernelsBitmapIsMappedAndAskedInPieces) {
    kernel_.type1().max_bitmap_bytes = 16;  // 128 pages
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    EXPECT_EQ(kernel_.type1().mapped_ranges(), 2 * kRamPages / 128);
    ASSERT_TRUE(log->start());
    write(0);
    write(127);
    write(128);
    write(511);
    EXPECT_EQ(*ask(*log), (std::set<uint64_t>{0, 127, 128, 511}));
    EXPECT_EQ(kernel_.type1().bitmap_queries, kRamPages / 128);
}

TEST_F(Type1Log, AnsweredBitsAreAddedToWhatIsThere) {
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    ASSERT_TRUE(log->start());
    write(2);
    util::Bitmap pages(kRamPages);
    pages.set(1);
    ASSERT_TRUE(log->query({0, kRamPages * kPageSize}, pages));
    EXPECT_EQ(set_bits(pages), (std::set<uint64_t>{1, 2}));
}

TEST_F(Type1Log, EveryFailingCallIsAnErrorAndNotAnEmptyBitmap) {
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    kernel_.type1().start_errnum = ENOMEM;
    EXPECT_EQ(test::errno_of(log->start()), ENOMEM);
    kernel_.type1().start_errnum = 0;
    EXPECT_EQ(test::errno_of(ask(*log)), EINVAL);  // not started
    ASSERT_TRUE(log->start());
    kernel_.type1().bitmap_errnum = EFAULT;
    EXPECT_EQ(test::errno_of(ask(*log)), EFAULT);
    util::Bitmap pages(1);
    EXPECT_FALSE(log->query({0, kPageSize}, pages));  // ends inside a mapping
}

TEST_F(Type1Log, UnmappingTellsWhatWasWritten) {
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    ASSERT_TRUE(log->start());
    write(9);
    util::Bitmap written(kRamPages);
    ASSERT_TRUE(host_.container()->dma_unmap_written(0, kRamPages * kPageSize, written));
    EXPECT_EQ(set_bits(written), (std::set<uint64_t>{9}));
    EXPECT_EQ(kernel_.type1().mapped_ranges(), 1u);
}

TEST_F(Type1Log, UnmappingThatCannotTellUnmapsAndSaysEverything) {
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    ASSERT_TRUE(log->start());
    kernel_.type1().unmap_bitmap_errnum = E2BIG;
    util::Bitmap written(kRamPages);
    ASSERT_TRUE(host_.container()->dma_unmap_written(0, kRamPages * kPageSize, written));
    EXPECT_EQ(written.count(), kRamPages);
    EXPECT_EQ(kernel_.type1().mapped_ranges(), 1u);
}

TEST_F(Type1Log, UnmappingWhileNothingIsTrackedSaysEverything) {
    ASSERT_NE(open(), nullptr);
    util::Bitmap written(kRamPages);
    ASSERT_TRUE(host_.container()->dma_unmap_written(0, kRamPages * kPageSize, written));
    EXPECT_EQ(written.count(), kRamPages);
    EXPECT_FALSE(host_.container()->dma_unmap_written(0, kRamPages * kPageSize, written));
}

TEST_F(Type1Log, ContainerThatPinsEverythingKnowsNothing) {
    kernel_.type1().physical = true;
    EXPECT_EQ(open(), nullptr);
}

TEST_F(Type1Log, ADeviceThatPinsEverythingEndsTheTrackingOfTheOthers) {
    kernel_.add_device("ferry.1", 4);
    IommuDirtyLog* log = open();
    ASSERT_NE(log, nullptr);
    ASSERT_TRUE(log->start());
    kernel_.type1().physical = true;
    auto second = host_.open_device("/sys/bus/platform/devices/ferry.1");
    ASSERT_TRUE(second);
    EXPECT_EQ((*second)->iommu_dirty_log(), nullptr);
    const auto asked = ask(*log);
    ASSERT_FALSE(asked);
    EXPECT_EQ(asked.error().kind(), ErrorKind::Unsupported);
}

TEST_F(Type1Log, KernelWithoutOurPagesOrWithoutTheCapabilityTracksNothing) {
    kernel_.type1().dirty_page_sizes = 65536;
    EXPECT_EQ(open(), nullptr);
    io_.reset();
    kernel_.type1().dirty_page_sizes = 4096;
    kernel_.type1().migration_capability = false;
    EXPECT_EQ(open(), nullptr);
}

TEST_F(Type1Log, ChainThatLeadsAstrayFailsTheDevice) {
    kernel_.type1().stray_capability = 8;
    const auto opened = host_.open_device("/sys/bus/platform/devices/ferry.0");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::Protocol);
    EXPECT_EQ(kernel_.open_fds(), 0u);
}

TEST(Type1InfoTest, ShortCapabilityAndEndlessChainAreRefused) {
    uapi::Type1Info fixed{.argsz = 32,
                          .flags = uapi::kType1InfoCaps,
                          .iova_pgsizes = 4096,
                          .cap_offset = 24,
                          .pad = 0};
    std::vector<std::byte> answer(sizeof(fixed) + sizeof(uapi::CapHeader));
    const auto put = [&](uapi::CapHeader header) {
        std::memcpy(answer.data(), &fixed, sizeof(fixed));
        std::memcpy(answer.data() + sizeof(fixed), &header, sizeof(header));
    };
    put({uapi::kType1CapMigration, 1, 0});
    EXPECT_FALSE(parse_type1_info(answer));
    put({99, 1, 0});
    EXPECT_TRUE(parse_type1_info(answer));
    put({99, 1, sizeof(fixed)});  // itself
    EXPECT_FALSE(parse_type1_info(answer));
    EXPECT_TRUE(parse_type1_info(ConstBytes(answer).first(16)));  // no room for a chain
}

}  // namespace
}  // namespace ferry::vfio
