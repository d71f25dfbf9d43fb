// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "hw/vfio/kernel-regions.h"
#include "hw/vfio/uapi.h"

namespace ferry::vfio {
namespace {

constexpr uint64_t kRegionSize = 0x10000;

// A region info as the kernel fills it: the fixed part, then whatever the test appends.
class InfoBuilder {
 public:
    explicit InfoBuilder(uint32_t first_capability) {
        const uapi::RegionInfo fixed{.argsz = sizeof(fixed),
                                     .flags = uapi::kRegionMmap | uapi::kRegionCaps,
                                     .index = 0,
                                     .cap_offset = first_capability,
                                     .size = kRegionSize,
                                     .offset = 0};
        append(fixed);
    }
    template <typename Struct>
    InfoBuilder& append(const Struct& value) {
        const size_t end = bytes_.size();
        bytes_.resize(end + sizeof(value));
        std::memcpy(bytes_.data() + end, &value, sizeof(value));
        return *this;
    }
    InfoBuilder& capability(uint16_t id, uint32_t next) {
        return append(uapi::CapHeader{.id = id, .version = 1, .next = next});
    }
    InfoBuilder& sparse(uint32_t nr_areas, uint32_t next) {
        return append(uapi::SparseMmapCap{
            .header = {.id = uapi::kRegionCapSparseMmap, .version = 1, .next = next},
            .nr_areas = nr_areas,
            .reserved = 0});
    }
    InfoBuilder& area(uint64_t offset, uint64_t size) {
        return append(uapi::SparseMmapArea{offset, size});
    }
    ConstBytes bytes() const { return bytes_; }

 private:
    std::vector<std::byte> bytes_;
};

ErrorKind error_of(const InfoBuilder& info) {
    const auto areas = parse_sparse_areas(info.bytes());
    return areas ? ErrorKind::Internal : areas.error().kind();
}

TEST(RegionCapabilities, ChainThatPointsIntoTheFixedPartIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(8).sparse(0, 0)), ErrorKind::Protocol);
}

TEST(RegionCapabilities, HeaderBeyondTheBufferIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(36).append(uint64_t{0})), ErrorKind::Protocol);
    EXPECT_EQ(error_of(InfoBuilder(0xfffffff8)), ErrorKind::Protocol);
}

TEST(RegionCapabilities, ChainThatPointsBackwardsIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(40).capability(9, 0).capability(9, 32)), ErrorKind::Protocol);
}

TEST(RegionCapabilities, ChainThatPointsToItselfIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(32).capability(9, 32)), ErrorKind::Protocol);
}

TEST(RegionCapabilities, EndlessChainIsRefused) {
    InfoBuilder info(32);
    for (uint32_t i = 1; i <= 100; ++i) info.capability(9, 32 + 8 * i);
    EXPECT_EQ(error_of(info), ErrorKind::Protocol);
}

TEST(RegionCapabilities, MoreAreasThanBytesAreRefused) {
    EXPECT_EQ(error_of(InfoBuilder(32).sparse(0x10000001, 0).area(0, 4096)), ErrorKind::Protocol);
}

TEST(RegionCapabilities, AreasThatRunIntoTheNextCapabilityAreRefused) {
    EXPECT_EQ(error_of(InfoBuilder(32).sparse(1, 48).capability(9, 56).capability(9, 0)),
              ErrorKind::Protocol);
}

TEST(RegionCapabilities, TruncatedSparseHeaderIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(32).capability(uapi::kRegionCapSparseMmap, 0)),
              ErrorKind::Protocol);
}

TEST(RegionCapabilities, AreaOutsideTheRegionIsRefused) {
    EXPECT_EQ(error_of(InfoBuilder(32).sparse(1, 0).area(kRegionSize - 4096, 8192)),
              ErrorKind::Protocol);
    EXPECT_EQ(error_of(InfoBuilder(32).sparse(1, 0).area(UINT64_MAX - 4095, 8192)),
              ErrorKind::Protocol);
}

TEST(RegionCapabilities, AreasAreFoundBehindUnknownCapabilities) {
    const auto areas = parse_sparse_areas(
        InfoBuilder(32).capability(9, 40).sparse(2, 0).area(0, 4096).area(8192, 0x8000).bytes());
    ASSERT_TRUE(areas);
    ASSERT_EQ(areas->size(), 2u);
    EXPECT_EQ((*areas)[1].offset, 8192u);
    EXPECT_EQ((*areas)[1].size, 0x8000u);
}

TEST(RegionCapabilities, WithoutSparseCapabilityTheWholeRegionMayBeMapped) {
    const auto areas = parse_sparse_areas(InfoBuilder(32).capability(3, 0).bytes());
    ASSERT_TRUE(areas);
    ASSERT_EQ(areas->size(), 1u);
    EXPECT_EQ((*areas)[0].size, kRegionSize);
}

TEST(RegionCapabilities, SparseCapabilityWithoutAreasForbidsMapping) {
    const auto areas = parse_sparse_areas(InfoBuilder(32).sparse(0, 0).bytes());
    ASSERT_TRUE(areas);
    EXPECT_TRUE(areas->empty());
}

}  // namespace
}  // namespace ferry::vfio
