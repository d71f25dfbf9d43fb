// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "hw/vfio/container-soft.h"
#include "tests/support/errno-of.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

using system::kPageSize;
using test::errno_of;

class SoftContainerTest : public testing::Test {
 protected:
    Result<> map(system::Iova iova, MutBytes host, MapAccess access = MapAccess::ReadWrite) {
        return container_.dma_map(iova, host, access);
    }
    std::vector<std::byte> low_ = std::vector<std::byte>(2 * kPageSize);
    std::vector<std::byte> high_ = std::vector<std::byte>(kPageSize);
    SoftContainer container_{"c"};
};

TEST_F(SoftContainerTest, MappingThatIsNoPagesIsRefused) {
    EXPECT_EQ(errno_of(map(1, low_)), EINVAL);
    EXPECT_EQ(errno_of(map(0, MutBytes(low_).first(5))), EINVAL);
    EXPECT_EQ(errno_of(map(0, {})), EINVAL);
    EXPECT_EQ(errno_of(map(0 - kPageSize, low_)), EINVAL);  // wraps
}

TEST_F(SoftContainerTest, OverlappingMappingIsRefused) {
    ASSERT_TRUE(map(4 * kPageSize, low_));
    for (const uint64_t page : {3, 4, 5}) {
        std::vector<std::byte> other(2 * kPageSize);
        EXPECT_EQ(errno_of(map(page * kPageSize, other)), EEXIST) << page;
    }
    EXPECT_TRUE(map(3 * kPageSize, high_));
}

TEST_F(SoftContainerTest, LastPageOfTheAddressSpaceCanBeMappedAndUnmapped) {
    EXPECT_TRUE(map(0 - kPageSize, high_));
    EXPECT_EQ(errno_of(map(0 - kPageSize, high_)), EEXIST);
    EXPECT_TRUE(container_.dma_unmap(0 - kPageSize, kPageSize));
    EXPECT_TRUE(map(0 - kPageSize, high_));
}

TEST_F(SoftContainerTest, UnmappingThatCutsAMappingIsRefused) {
    ASSERT_TRUE(map(4 * kPageSize, low_));
    EXPECT_EQ(errno_of(container_.dma_unmap(4 * kPageSize, kPageSize)), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_unmap(5 * kPageSize, kPageSize)), EINVAL);
    EXPECT_EQ(errno_of(container_.dma_unmap(3 * kPageSize, 2 * kPageSize)), EINVAL);
}

TEST_F(SoftContainerTest, UnmappingSpansMappingsAndHoles) {
    ASSERT_TRUE(map(0, low_));
    ASSERT_TRUE(map(4 * kPageSize, high_));
    EXPECT_TRUE(container_.dma_unmap(0, 8 * kPageSize));
    std::byte one[1]{};
    EXPECT_EQ(errno_of(container_.dma_read(0, one)), EFAULT);
}

TEST_F(SoftContainerTest, AccessThatLeavesTheMappingsDoesNothing) {
    ASSERT_TRUE(map(0, low_));
    const std::vector<std::byte> ones(4, std::byte{1});
    EXPECT_EQ(errno_of(container_.dma_write(2 * kPageSize - 2, ones)), EFAULT);
    EXPECT_EQ(low_.back(), std::byte{0});
    std::byte out[4]{};
    EXPECT_EQ(errno_of(container_.dma_read(2 * kPageSize - 2, out)), EFAULT);
}

TEST_F(SoftContainerTest, AccessThatWrapsIsRefused) {
    ASSERT_TRUE(map(0 - kPageSize, high_));
    ASSERT_TRUE(map(0, low_));
    std::byte out[4]{};
    EXPECT_EQ(errno_of(container_.dma_read(~uint64_t{0} - 1, out)), EFAULT);
}

TEST_F(SoftContainerTest, AccessCrossesNeighbouringMappings) {
    ASSERT_TRUE(map(kPageSize, high_));
    ASSERT_TRUE(map(2 * kPageSize, low_));
    std::byte in[8], out[8];
    util::store_le64(in, 0x1122334455667788);
    ASSERT_TRUE(container_.dma_write(2 * kPageSize - 4, in));
    ASSERT_TRUE(container_.dma_read(2 * kPageSize - 4, out));
    EXPECT_EQ(util::load_le64(out), 0x1122334455667788);
    EXPECT_EQ(util::load_le32(high_.data() + kPageSize - 4), 0x55667788);
    EXPECT_EQ(util::load_le32(low_.data()), 0x11223344);
}

// A device writes while the migration reads; the sanitizers must not mind.
TEST_F(SoftContainerTest, DeviceMayWriteWhatAnotherThreadReads) {
    ASSERT_TRUE(map(0, low_));
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

TEST_F(SoftContainerTest, MemoryMappedForReadingIsNotWritten) {
    ASSERT_TRUE(map(0, low_, MapAccess::ReadOnly));
    std::vector<std::byte> bytes(4, std::byte{7});
    EXPECT_EQ(errno_of(container_.dma_write(0, bytes)), EFAULT);
    EXPECT_EQ(low_[0], std::byte{0});
    EXPECT_TRUE(container_.dma_read(0, bytes));
}

TEST_F(SoftContainerTest, WhatIsUnmappedMayHaveBeenWrittenAnywhere) {
    ASSERT_TRUE(map(0, low_));
    util::Bitmap written(2);
    ASSERT_TRUE(container_.dma_unmap_written(0, 2 * kPageSize, written));
    EXPECT_EQ(written.count(), 2u);
}

}  // namespace
}  // namespace ferry::vfio
