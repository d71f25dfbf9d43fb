// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "hw/vfio/container-soft.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

constexpr uint64_t kPage = system::kPageSize;

template <typename T>
int errno_of(const Result<T>& result) {
    return result ? 0 : result.error().errnum();
}

class SoftContainerTest : public testing::Test {
 protected:
    std::vector<std::byte> low_ = std::vector<std::byte>(2 * kPage);
    std::vector<std::byte> high_ = std::vector<std::byte>(kPage);
    SoftContainer container_{"c"};
};

TEST_F(SoftContainerTest, MappingThatIsNoPagesIsRefused) {
    EXPECT_EQ(errno_of(container_.dma_map(1, low_)), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_map(0, MutBytes(low_).first(5))), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_map(0, {})), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_map(0 - kPage, low_)), EINVAL);  // wraps
}

TEST_F(SoftContainerTest, OverlappingMappingIsRefused) {
    ASSERT_TRUE(container_.dma_map(4 * kPage, low_));
    for (const uint64_t page : {3, 4, 5}) {
        std::vector<std::byte> other(2 * kPage);
        EXPECT_EQ(errno_of(container_.dma_map(page * kPage, other)), EEXIST) << page;
    }
    EXPECT_TRUE(container_.dma_map(3 * kPage, high_));
}

TEST_F(SoftContainerTest, LastPageOfTheAddressSpaceCanBeMappedAndUnmapped) {
    EXPECT_TRUE(container_.dma_map(0 - kPage, high_));
    EXPECT_EQ(errno_of(container_.dma_map(0 - kPage, high_)), EEXIST);
    EXPECT_TRUE(container_.dma_unmap(0 - kPage, kPage));
    EXPECT_TRUE(container_.dma_map(0 - kPage, high_));
}

TEST_F(SoftContainerTest, UnmappingThatCutsAMappingIsRefused) {
    ASSERT_TRUE(container_.dma_map(4 * kPage, low_));
    EXPECT_EQ(errno_of(container_.dma_unmap(4 * kPage, kPage)), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_unmap(5 * kPage, kPage)), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_unmap(3 * kPage, 2 * kPage)), EINVAL);
}

TEST_F(SoftContainerTest, UnmappingSpansMappingsAndHoles) {
    ASSERT_TRUE(container_.dma_map(0, low_));
    ASSERT_TRUE(container_.dma_map(4 * kPage, high_));
    EXPECT_TRUE(container_.dma_unmap(0, 8 * kPage));
    std::byte one[1]{};
    EXPECT_EQ(errno_of(container_.dma_read(0, one)), EFAULT);
}

TEST_F(SoftContainerTest, AccessThatLeavesTheMappingsDoesNothing) {
    ASSERT_TRUE(container_.dma_map(0, low_));
    const std::vector<std::byte> ones(4, std::byte{1});
    EXPECT_EQ(errno_of(container_.dma_write(2 * kPage - 2, ones)), EFAULT);
    EXPECT_EQ(low_.back(), std::byte{0});
    std::byte out[4]{};
    EXPECT_EQ(errno_of(container_.dma_read(2 * kPage - 2, out)), EFAULT);
}

TEST_F(SoftContainerTest, AccessThatWrapsIsRefused) {
    ASSERT_TRUE(container_.dma_map(0 - kPage, high_));
    ASSERT_TRUE(container_.dma_map(0, low_));
    std::byte out[4]{};
    EXPECT_EQ(errno_of(container_.dma_read(~uint64_t{0} - 1, out)), EFAULT);
}

TEST_F(SoftContainerTest, AccessCrossesNeighbouringMappings) {
    ASSERT_TRUE(container_.dma_map(kPage, high_));
    ASSERT_TRUE(container_.dma_map(2 * kPage, low_));
    std::byte in[8], out[8];
    util::store_le64(in, 0x1122334455667788);
    ASSERT_TRUE(container_.dma_write(2 * kPage - 4, in));
    ASSERT_TRUE(container_.dma_read(2 * kPage - 4, out));
    EXPECT_EQ(util::load_le64(out), 0x1122334455667788);
    EXPECT_EQ(util::load_le32(high_.data() + kPage - 4), 0x55667788);
    EXPECT_EQ(util::load_le32(low_.data()), 0x11223344);
}

// A device writes while the migration reads; the sanitizers must not mind.
TEST_F(SoftContainerTest, DeviceMayWriteWhatAnotherThreadReads) {
    ASSERT_TRUE(container_.dma_map(0, low_));
    std::thread device([&] {
        const std::vector<std::byte> ones(low_.size(), std::byte{1});
        for (int i = 0; i < 16; ++i) EXPECT_TRUE(container_.dma_write(0, ones));
    });
    std::byte sum{};
    for (int i = 0; i < 16; ++i) sum ^= low_[static_cast<size_t>(i)];
    device.join();
    EXPECT_EQ(low_.front(), std::byte{1});
    (void)sum;
}

}  // namespace
}  // namespace ferry::vfio
