// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>

#include "hw/pci/config-space.h"
#include "util/wire.h"

namespace ferry::pci {
namespace {

constexpr size_t kStatus = 0x06, kCapabilityPointer = 0x34;
constexpr uint16_t kHasList = 0x10;

std::vector<std::byte> blank(size_t size = kConfigBytes) {
    return std::vector<std::byte>(size);
}

// A space with a list that begins at `first`.
std::vector<std::byte> with_list(uint8_t first, size_t size = kConfigBytes) {
    auto config = blank(size);
    util::store_le16(config.data() + kStatus, kHasList);
    config[kCapabilityPointer] = std::byte{first};
    return config;
}

void put(std::vector<std::byte>& config, size_t at, uint8_t id, uint8_t next) {
    config[at] = std::byte{id};
    config[at + 1] = std::byte{next};
}

TEST(CapabilityWalk, LoopIsRefused) {
    auto config = with_list(0x40);
    put(config, 0x40, 1, 0x50);
    put(config, 0x50, 2, 0x40);
    const auto walked = walk_capabilities(config);
    ASSERT_FALSE(walked);
    EXPECT_EQ(walked.error().kind(), ErrorKind::Protocol);
}

TEST(CapabilityWalk, PointerIntoTheHeaderIsRefused) {
    EXPECT_FALSE(walk_capabilities(with_list(0x3c)));
}

TEST(CapabilityWalk, WithoutTheStatusBitThereAreNone) {
    auto config = with_list(0x40);
    util::store_le16(config.data() + kStatus, 0);
    EXPECT_TRUE(walk_capabilities(config)->empty());
}

TEST(CapabilityWalk, ReservedPointerBitsAreIgnored) {
    auto config = with_list(0x43);
    put(config, 0x40, 9, 0);
    const auto walked = walk_capabilities(config);
    ASSERT_TRUE(walked);
    EXPECT_EQ(walked->at(0).offset, 0x40);
}

TEST(CapabilityWalk, EachEndsWhereTheNextInTheSpaceBegins) {
    auto config = with_list(0x80);
    put(config, 0x80, 1, 0x40);  // the list's order is not the space's
    put(config, 0x40, 2, 0);
    const auto walked = walk_capabilities(config);
    ASSERT_TRUE(walked);
    ASSERT_EQ(walked->size(), 2u);
    EXPECT_EQ(walked->at(0).length, 0x80);
    EXPECT_EQ(walked->at(1).length, 0x40);
}

TEST(ExpressCapabilityWalk, LoopAndStrayPointersAreRefused) {
    auto config = blank(kExpressConfigBytes);
    util::store_le32(config.data() + 0x100, 0x10010001);  // next is 0x100 itself
    EXPECT_FALSE(walk_express_capabilities(config));
    util::store_le32(config.data() + 0x100, 0x0c010001);  // next is 0xc0
    EXPECT_FALSE(walk_express_capabilities(config));
}

TEST(ExpressCapabilityWalk, EmptyAndDeadSpacesHaveNone) {
    auto config = blank(kExpressConfigBytes);
    EXPECT_TRUE(walk_express_capabilities(config)->empty());
    util::store_le32(config.data() + 0x100, UINT32_MAX);
    EXPECT_TRUE(walk_express_capabilities(config)->empty());
    EXPECT_TRUE(walk_express_capabilities(blank())->empty());
}

TEST(ExpressCapabilityWalk, FollowsTheList) {
    auto config = blank(kExpressConfigBytes);
    util::store_le32(config.data() + 0x100, 0x14010001);
    util::store_le32(config.data() + 0x140, 0x00010003);
    const auto walked = walk_express_capabilities(config);
    ASSERT_TRUE(walked);
    ASSERT_EQ(walked->size(), 2u);
    EXPECT_EQ(walked->at(0).length, 0x40);
    EXPECT_EQ(walked->at(1).id, 3);
    EXPECT_EQ(walked->at(1).length, kExpressConfigBytes - 0x140);
}

TEST(ConfigSpace, GuestChangesOnlyWhatItMay) {
    ConfigSpace space(blank());
    space.set_u32(0x10, 0x4);
    util::store_le32(space.writable().data() + 0x10, 0xfffff000);
    std::byte all[4];
    std::ranges::fill(all, std::byte{0xff});
    space.guest_write(0x10, all);
    EXPECT_EQ(space.u32(0x10), 0xfffff004);
}

TEST(ConfigSpace, WritingOneClearsWhereThatIsTheRule) {
    ConfigSpace space(blank());
    space.set_u16(kStatus, 0xf810);
    util::store_le16(space.write_one_clears().data() + kStatus, 0xf900);
    std::byte value[2];
    util::store_le16(value, 0x8000);
    space.guest_write(kStatus, value);
    EXPECT_EQ(space.u16(kStatus), 0x7810);
}

TEST(ConfigSpace, ImageThatDiffersInAFixedBitIsRefusedUntouched) {
    ConfigSpace space(blank());
    space.set_u8(0x44, 0x12);
    space.must_match()[0x44] = std::byte{0xff};
    space.writable()[0x44] = std::byte{0x0f};
    auto image = blank();
    image[0x44] = std::byte{0x22};
    const auto loaded = space.load(image);
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().kind(), ErrorKind::Protocol);
    EXPECT_EQ(loaded.error().message(),
              "configuration space differs at 0x44: 0x22 came, this device has 0x12 "
              "(must match 0xff, writable 0x0f, write-1-clear 0x00)");
    EXPECT_EQ(space.u8(0x44), 0x12);
}

TEST(ConfigSpace, BitsThatTheGuestChangesNeedNotMatch) {
    ConfigSpace space(blank());
    space.must_match()[0x44] = std::byte{0xff};
    space.writable()[0x44] = std::byte{0x0f};
    space.write_one_clears()[0x44] = std::byte{0x80};
    auto image = blank();
    image[0x44] = std::byte{0x85};
    ASSERT_TRUE(space.load(image));
    EXPECT_EQ(space.u8(0x44), 0x85);
}

TEST(ConfigSpace, ImageOfAnotherSizeIsRefused) {
    ConfigSpace space(blank());
    EXPECT_FALSE(space.load(blank(kExpressConfigBytes)));
}

}  // namespace
}  // namespace ferry::pci
