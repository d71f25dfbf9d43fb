// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>

#include "system/memory.h"

namespace ferry::system {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;

TEST(GuestMemory, AccessAcrossBlocksAndOutsideRam) {
    GuestMemory memory;
    RamBlock* low = *memory.add_block(std::move(*RamBlock::create_memfd("low", kMiB)));
    RamBlock* high = *memory.add_block(std::move(*RamBlock::create_memfd("high", kMiB)));
    ASSERT_TRUE(memory.map(*low, 0, 0, kMiB));
    ASSERT_TRUE(memory.map(*high, kMiB, 0, kMiB));
    const std::array<std::byte, 4> data{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    ASSERT_TRUE(memory.write(kMiB - 2, data));
    EXPECT_EQ(low->host()[kMiB - 1], std::byte{2});
    EXPECT_EQ(high->host()[0], std::byte{3});
    util::Bitmap dirty(low->pages());
    low->dirty_log().collect_into(dirty);
    EXPECT_EQ(dirty.find_set(0), low->pages() - 1);
    EXPECT_FALSE(memory.write(2 * kMiB - 2, data));
    EXPECT_FALSE(memory.write(UINT64_MAX, data));
}

TEST(GuestMemory, OverlapsAndBadNamesAreRefused) {
    GuestMemory memory;
    RamBlock* block = *memory.add_block(std::move(*RamBlock::create_memfd("a", kMiB)));
    ASSERT_TRUE(memory.map(*block, 0, 0, kMiB));
    EXPECT_FALSE(memory.map(*block, kMiB - kPageSize, 0, kPageSize));
    EXPECT_FALSE(memory.map(*block, 4 * kMiB, kMiB, kPageSize));
    EXPECT_FALSE(memory.add_block(std::move(*RamBlock::create_memfd("a", kMiB))));
    EXPECT_FALSE(RamBlock::create_memfd(std::string(128, 'x'), kMiB));
    EXPECT_FALSE(RamBlock::create_memfd("b", kMiB + 1));
}

TEST(RamBlock, FreshMemoryIsUnusedUntilTheFirstWrite) {
    GuestMemory memory;
    RamBlock* block = *memory.add_block(std::move(*RamBlock::create_memfd("a", kMiB)));
    ASSERT_TRUE(memory.map(*block, 0, 0, kMiB));
    EXPECT_FALSE(block->used());
    const std::array<std::byte, 1> data{};
    ASSERT_TRUE(memory.write(0, data));
    EXPECT_TRUE(block->used());
}

TEST(DirtyLogUse, ObserverGivesWayToAMigrationOnce) {
    DirtyLogUse use;
    int gave_way = 0;
    auto observing = use.observe([&] { ++gave_way; });
    ASSERT_TRUE(observing);
    EXPECT_FALSE(use.observe([] {}));
    auto migrating = use.take();
    EXPECT_EQ(gave_way, 1);
    observing->reset();  // it has nothing to give back any more
    EXPECT_FALSE(use.observe([] {}));
    migrating.reset();
    EXPECT_TRUE(use.observe([] {}));
}

TEST(DirtyLogUse, ObserverThatHasGoneIsNotAsked) {
    DirtyLogUse use;
    use.observe([] { FAIL(); });
    const auto migrating = use.take();
    EXPECT_FALSE(use.observe([] {}));
}

}  // namespace
}  // namespace ferry::system
