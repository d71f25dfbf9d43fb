// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "accel/kvm/interrupts.h"
#include "accel/kvm/memory-slots.h"

namespace ferry::test {
namespace {

using system::kPageSize;

class KvmSlots : public testing::Test {
 protected:
    void SetUp() override {
        auto ram = system::RamBlock::create_memfd("ram", 64 * kPageSize);
        ASSERT_TRUE(ram);
        block_ = std::move(*ram);
    }
    std::unique_ptr<system::RamBlock> block_;
};

TEST_F(KvmSlots, OnePerMappingNumberedInOrder) {
    const auto slots =
        kvm::slots_for({{block_.get(), 0, 0, 16 * kPageSize},
                        {block_.get(), uint64_t{4} << 30, 16 * kPageSize, 48 * kPageSize}},
                       8);
    ASSERT_TRUE(slots);
    ASSERT_EQ(slots->size(), 2U);
    EXPECT_EQ((*slots)[1].id, 1U);
    EXPECT_EQ((*slots)[1].gpa, uint64_t{4} << 30);
    EXPECT_EQ((*slots)[1].host.data(), block_->host().data() + 16 * kPageSize);
    EXPECT_EQ((*slots)[1].pages(), 48U);
}

TEST_F(KvmSlots, WhatIsNotPagesIsRefused) {
    EXPECT_FALSE(kvm::slots_for({{block_.get(), 0, 0, 100}}, 8));
    EXPECT_FALSE(kvm::slots_for({{block_.get(), 1, 0, kPageSize}}, 8));
    EXPECT_FALSE(kvm::slots_for({{block_.get(), 0, 7, kPageSize}}, 8));
}

TEST_F(KvmSlots, MoreThanTheHostHasAreRefused) {
    const auto slots = kvm::slots_for(
        {{block_.get(), 0, 0, kPageSize}, {block_.get(), kPageSize, kPageSize, kPageSize}}, 1);
    ASSERT_FALSE(slots);
    EXPECT_EQ(slots.error().kind(), ErrorKind::LimitExceeded);
}

TEST(KvmRoutes, LinesLeadToBothControllersAndThePitToPinTwo) {
    const auto table = kvm::routing_table({});
    size_t pic = 0, ioapic = 0;
    for (const auto& entry : table) {
        ASSERT_EQ(entry.type, uint32_t{KVM_IRQ_ROUTING_IRQCHIP});
        const bool is_ioapic = entry.u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC;
        ++(is_ioapic ? ioapic : pic);
        const uint32_t expected = entry.gsi == 0 ? 2 : entry.gsi;
        EXPECT_TRUE(!is_ioapic || entry.u.irqchip.pin == expected) << entry.gsi;
        EXPECT_FALSE(is_ioapic && entry.gsi == 2);
    }
    EXPECT_EQ(pic, 16U);
    EXPECT_EQ(ioapic, 23U);
}

TEST(KvmRoutes, MessagesFollowTheLines) {
    const auto table = kvm::routing_table({{30, {0x1'fee0'1000, 0x4041}}});
    const auto& entry = table.back();
    EXPECT_EQ(entry.gsi, 30U);
    EXPECT_EQ(entry.type, uint32_t{KVM_IRQ_ROUTING_MSI});
    EXPECT_EQ(entry.u.msi.address_lo, 0xfee0'1000U);
    EXPECT_EQ(entry.u.msi.address_hi, 1U);
    EXPECT_EQ(entry.u.msi.data, 0x4041U);
}

}  // namespace
}  // namespace ferry::test
