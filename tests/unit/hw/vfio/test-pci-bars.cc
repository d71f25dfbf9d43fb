// SPDX-License-Identifier: BSD-2-Clause
// BARs that the guest's CPUs reach without the VMM.
#include <algorithm>
#include <cerrno>
#include <map>

#include "hw/vfio/pci-bars.h"
#include "tests/unit/hw/vfio/pci-rig.h"
#include "util/try.h"

namespace ferry::vfio {
namespace {

using Areas = std::vector<std::pair<uint64_t, uint64_t>>;
constexpr uint64_t kPage = system::kPageSize;

Areas usable(const RegionInfo& region, const std::optional<MsixLayout>& msix = {}) {
    Areas areas;
    for (const auto& area : directly_usable(region, 0, msix)) {
        areas.emplace_back(area.offset, area.size);
    }
    return areas;
}

RegionInfo mappable(std::vector<RegionInfo::Area> areas, uint64_t size = 16 * kPage) {
    return {.size = size,
            .readable = true,
            .writable = true,
            .mappable = true,
            .mmap_areas = std::move(areas)};
}

TEST(PciBarAreas, WhatCannotBeMappedReadAndWrittenIsTrapped) {
    for (bool RegionInfo::* const missing :
         {&RegionInfo::mappable, &RegionInfo::readable, &RegionInfo::writable}) {
        RegionInfo region = mappable({{0, 16 * kPage}});
        region.*missing = false;
        EXPECT_EQ(usable(region), Areas{});
    }
}

TEST(PciBarAreas, OnlyWholePagesAreShown) {
    EXPECT_EQ(usable(mappable({{0, 256}}, 256)), Areas{});
    EXPECT_EQ(usable(mappable({{100, 3 * kPage}, {8 * kPage, 2 * kPage}})),
              (Areas{{kPage, 2 * kPage}, {8 * kPage, 2 * kPage}}));
}

TEST(PciBarAreas, PagesOfTableAndPendingBitsStayTrapped) {
    const MsixLayout msix{.vectors = 4,
                          .table_bar = 0,
                          .table_offset = 4 * kPage + 0x800,
                          .pba_bar = 0,
                          .pba_offset = 6 * kPage};
    EXPECT_EQ(usable(mappable({{0, 16 * kPage}}), msix),
              (Areas{{0, 4 * kPage}, {5 * kPage, kPage}, {7 * kPage, 9 * kPage}}));
    EXPECT_EQ(
        usable(mappable({{0, 16 * kPage}}), MsixLayout{.vectors = 4, .table_bar = 2, .pba_bar = 2}),
        (Areas{{0, 16 * kPage}}));
}

TEST(PciBarAreas, ATableThatCrossesPagesTakesAllOfThem) {
    const MsixLayout msix{.vectors = 512, .table_bar = 0, .table_offset = kPage - 16, .pba_bar = 2};
    EXPECT_EQ(usable(mappable({{0, 4 * kPage}}), msix), (Areas{{3 * kPage, kPage}}));
}

class FakeDeviceMemory final : public system::DeviceMemory {
 public:
    Result<util::Registration> map_device_memory(system::Gpa gpa, MutBytes host) override {
        ++calls;
        if (fail != 0) return make_errno(fail, "ioctl(KVM_SET_USER_MEMORY_REGION)");
        EXPECT_FALSE(shown.contains(gpa));
        shown[gpa] = host;
        return util::Registration([this, gpa] { shown.erase(gpa); });
    }
    std::map<system::Gpa, MutBytes> shown;
    unsigned calls = 0;
    int fail = 0;
};

class PciBarsTest : public test::PciFunctionTest {
 protected:
    PciBarsTest() {
        function_.reset();
        wires_pins_ = false;
        device_memory_ = &memory_of_guest_;
        function_ = *create();
    }
    ~PciBarsTest() override {
        function_.reset();
        EXPECT_TRUE(memory_of_guest_.shown.empty());
    }
    void decode(uint64_t at) {
        function_->config_write(PCI_BASE_ADDRESS_0, 4, static_cast<uint32_t>(at));
        function_->config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    }
    std::vector<system::Gpa> shown_at() const {
        std::vector<system::Gpa> out;
        for (const auto& [gpa, host] : memory_of_guest_.shown) out.push_back(gpa);
        return out;
    }
    using Places = std::vector<system::Gpa>;
    FakeDeviceMemory memory_of_guest_;
};

TEST_F(PciBarsTest, ABarThatTheDriverDoesNotMapIsTrapped) {
    function_.reset();
    io_.reset();
    // The calls of a creation, each failing once; those that map are survived.
    unsigned survived = 0;
    for (unsigned call = 1; call < 40; ++call) {
        io_.reset();
        io_ = std::move(*host_.open_device(name_));
        kernel_.fail_call(kernel_.calls() + call, ENOMEM);
        auto created = create();
        kernel_.fail_call(0, 0);
        if (!created) continue;
        function_ = *created;
        decode(0xe0000000);
        if (memory_of_guest_.shown.empty()) {
            ++survived;
            EXPECT_EQ(warnings(), 1u);
            std::byte four[4];
            EXPECT_TRUE(function_->bar_read(0, 0, four));
        }
        function_.reset();
        if (survived != 0) break;
    }
    EXPECT_EQ(survived, 1u);
}

TEST_F(PciBarsTest, AnAddressThatIsRefusedIsTrappedAndNotTriedAgain) {
    memory_of_guest_.fail = EEXIST;
    decode(0x10000000);
    EXPECT_EQ(warnings(), 1u);
    const unsigned calls = memory_of_guest_.calls;
    enable_msix();
    set_vector(0, 0xfee01000, 7);
    EXPECT_EQ(memory_of_guest_.calls, calls);
    std::byte four[4];
    EXPECT_TRUE(function_->bar_read(0, 0, four));
    memory_of_guest_.fail = 0;
    decode(0xe0000000);
    EXPECT_EQ(shown_at(), Places{0xe0000000});
}

TEST_F(PciBarsTest, FollowsTheAddressThatTheGuestGivesIt) {
    EXPECT_TRUE(memory_of_guest_.shown.empty());
    decode(0xe0000000);
    ASSERT_EQ(shown_at(), Places{0xe0000000});
    EXPECT_EQ(memory_of_guest_.shown.begin()->second.size(), 4 * kPage);
    device_.regions[0].bytes()[0x123] = std::byte{0x5a};
    EXPECT_EQ(memory_of_guest_.shown.begin()->second[0x123], std::byte{0x5a});
    decode(0xe0100000);
    EXPECT_EQ(shown_at(), Places{0xe0100000});
    function_->config_write(PCI_BASE_ADDRESS_0, 4, 0xffffffff);  // how big?
    function_->config_write(PCI_BASE_ADDRESS_0 + 4, 4, 0xffffffff);
    EXPECT_TRUE(memory_of_guest_.shown.empty());
}

TEST_F(PciBarsTest, IsGoneBeforeTheDeviceStopsDecoding) {
    decode(0xe0000000);
    size_t shown = 1;
    kernel_.on_call = [&] { shown = std::min(shown, memory_of_guest_.shown.size()); };
    function_->config_write(PCI_COMMAND, 2, 0);
    EXPECT_EQ(shown, 0u);
    EXPECT_TRUE(memory_of_guest_.shown.empty());
    shown = 0;
    kernel_.on_call = [&] { shown = std::max(shown, memory_of_guest_.shown.size()); };
    function_->config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    EXPECT_EQ(shown, 0u) << "shown before the device decodes";
    kernel_.on_call = nullptr;
    EXPECT_EQ(memory_of_guest_.shown.size(), 1u);
}

TEST_F(PciBarsTest, IsGoneWhileTheDeviceIsReset) {
    decode(0xe0000000);
    size_t shown = 1;
    kernel_.on_call = [&] { shown = std::min(shown, memory_of_guest_.shown.size()); };
    EXPECT_TRUE(function_->reset(PciFunction::ResetBy::Guest));
    kernel_.on_call = nullptr;
    EXPECT_EQ(shown, 0u);
    EXPECT_TRUE(memory_of_guest_.shown.empty());  // decodes nothing after it either
    decode(0xe0000000);
    EXPECT_EQ(shown_at(), Places{0xe0000000});
}

TEST_F(PciBarsTest, IsGoneWhenTheFunctionLeavesTheGuest) {
    decode(0xe0000000);
    EXPECT_TRUE(function_->leave_guest());
    EXPECT_TRUE(memory_of_guest_.shown.empty());
}

TEST_F(PciBarsTest, AResetThatDidNotHappenLeavesItWhereItWas) {
    decode(0xe0000000);
    kernel_.fail_call(kernel_.calls() + 1, EAGAIN);
    EXPECT_FALSE(function_->reset(PciFunction::ResetBy::Guest));
    EXPECT_EQ(shown_at(), Places{0xe0000000});
}

TEST_F(PciBarsTest, WhileThePinIsUsedEachAccessIsSeen) {
    function_.reset();
    wires_pins_ = true;
    function_ = *create();
    decode(0xe0000000);
    EXPECT_TRUE(memory_of_guest_.shown.empty());
    enable_msix();
    EXPECT_EQ(shown_at(), Places{0xe0000000});
    function_->config_write(0x42, 2, 0);
    EXPECT_TRUE(memory_of_guest_.shown.empty());
}

}  // namespace
}  // namespace ferry::vfio
