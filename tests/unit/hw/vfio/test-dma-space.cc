// SPDX-License-Identifier: BSD-2-Clause
// Devices behind a virtual IOMMU: what they write is found under the guest's addresses, whatever
// the guest does to the translations meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <set>
#include <thread>

#include "hw/vfio/container-iommufd.h"
#include "hw/vfio/container-legacy.h"
#include "hw/vfio/dirty-tracking.h"
#include "hw/vfio/iommufd-uapi.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/fakes/remapping-iommu.h"
#include "tests/support/errno-of.h"
#include "tests/support/test-env.h"

namespace ferry::vfio {
namespace {

using system::kPageSize;
using system::SyncPhase;
using test::RemappingIommu;

constexpr uint64_t kEntries = 64;
constexpr uint64_t kTablePages = 1;
constexpr uint64_t kGuestPages = 128;         // of RAM, the table among them
constexpr uint64_t kBase = 0xfee0'0000'0000;  // far from guest physical addresses
constexpr uint64_t kRw = RemappingIommu::kReadable | RemappingIommu::kWritable;

// Guest pages, by their numbers.
class GuestPages final : public system::DirtySink {
 public:
    void mark_dirty(system::Gpa first, uint64_t length) override {
        for (uint64_t at = 0; at < length; at += kPageSize) dirty.insert((first + at) / kPageSize);
    }
    void mark_dirty_pages(system::Gpa first, uint64_t page_size,
                          const util::Bitmap& bits) override {
        for (uint64_t bit = bits.find_set(0); bit < bits.size(); bit = bits.find_set(bit + 1)) {
            dirty.insert((first + bit * page_size) / kPageSize);
        }
    }
    void mark_untracked(system::Gpa first, uint64_t length) override {
        for (uint64_t at = 0; at < length; at += kPageSize) {
            untracked.insert((first + at) / kPageSize);
        }
    }
    std::set<uint64_t> dirty, untracked;
};

enum class Backend : uint8_t { Type1, Iommufd };

class SpaceTest : public testing::TestWithParam<Backend> {
 protected:
    SpaceTest() {
        ram_ = *memory_.add_block(*system::RamBlock::create_memfd("ram", kGuestPages * kPageSize));
        EXPECT_TRUE(memory_.map(*ram_, 0, 0, kGuestPages * kPageSize));
        kernel_.iommufd().iommus["ferry.0"] = {.kind = 1, .tracks = true};
        open();
    }
    ~SpaceTest() override {
        tracker_.dirty_log_stop();
        registration_.reset();
        EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
    }
    void open() {
        constexpr std::string_view kPath = "/sys/bus/platform/devices/ferry.0";
        auto device = GetParam() == Backend::Type1 ? group_host_.open_device(kPath)
                                                   : node_host_.open_device(kPath);
        ASSERT_TRUE(device) << device.error().message();
        io_ = std::move(*device);
    }
    void track(DirtySource source = DirtySource::Iommu,
               PrecopyQueries precopy = PrecopyQueries::Yes) {
        registration_ = tracker_.add({.label = "d0",
                                      .io = *io_,
                                      .worker = **worker_,
                                      .source = source,
                                      .precopy = precopy,
                                      .space = &space_});
        ASSERT_TRUE(tracker_.dirty_log_start());
        (void)rescued();  // what the guest wrote before, its table
    }
    // The guest's table entry, at once in effect.
    void remap(uint64_t entry, uint64_t guest_page, uint64_t access = kRw) {
        iommu_.write_entry(entry, guest_page * kPageSize, access);
        ASSERT_TRUE(iommu_.invalidate(entry, 1));
    }
    void take_away(uint64_t entry) {
        iommu_.clear_entry(entry);
        ASSERT_TRUE(iommu_.invalidate(entry, 1));
    }
    bool device_writes(uint64_t entry) {
        return kernel_.dma_write(device_, iommu_.iova_of(entry), std::byte{0x5a});
    }
    // What the RAM block's own log has, without the table, which the guest itself writes.
    std::set<uint64_t> rescued() {
        util::Bitmap bits(kGuestPages);
        ram_->dirty_log().collect_into(bits);
        std::set<uint64_t> pages;
        for (uint64_t page = bits.find_set(kTablePages); page < bits.size();
             page = bits.find_set(page + 1)) {
            pages.insert(page);
        }
        return pages;
    }
    GuestPages sync(SyncPhase phase) {
        GuestPages pages;
        tracker_.dirty_log_sync(phase, pages);
        return pages;
    }
    // All that a migration would send again.
    std::set<uint64_t> found(SyncPhase phase = SyncPhase::Precopy) {
        GuestPages pages = sync(phase);
        pages.dirty.merge(pages.untracked);
        pages.dirty.merge(rescued());
        return pages.dirty;
    }
    void fail_queries() {
        kernel_.type1().unmap_bitmap_errnum = E2BIG;
        kernel_.type1().bitmap_errnum = EIO;
        kernel_.iommufd().errnums[uapi::iommufd::kGetDirtyBitmap] = EIO;
    }
    size_t queries() {
        return kernel_.type1().bitmap_queries + kernel_.iommufd().dirty_queries.size();
    }
    uint64_t mapped_bytes() {
        return kernel_.type1().mapped_bytes() + kernel_.iommufd().mapped_bytes();
    }

    test::TestEnv env_;
    test::FakeVfioKernel kernel_;
    test::FakeVfioDevice& device_ = kernel_.add_device("ferry.0", 3);
    system::GuestMemory memory_;
    system::RamBlock* ram_ = nullptr;
    DmaSpace space_{memory_};
    RemappingIommu iommu_{memory_, space_, 0, kBase, kEntries};
    VfioKernelHost group_host_{kernel_, memory_, &space_};
    IommufdHost node_host_{kernel_, memory_, "iommufd0", {}, &space_};
    std::unique_ptr<VfioDeviceIo> io_;
    Result<std::unique_ptr<util::Worker>> worker_ = util::Worker::create("vfio/d0");
    VfioDirtyTracker tracker_{memory_, env_.env};
    util::Registration registration_;
};

TEST_P(SpaceTest, NothingIsMappedThatTheGuestDidNotMap) {
    EXPECT_EQ(mapped_bytes(), 0u);
    EXPECT_FALSE(device_writes(3));
    remap(3, 20);
    EXPECT_EQ(mapped_bytes(), kPageSize);
    EXPECT_TRUE(device_writes(3));
    EXPECT_EQ(ram_->host()[20 * kPageSize], std::byte{0x5a});
    take_away(3);
    EXPECT_FALSE(device_writes(3));
}

TEST_P(SpaceTest, WritesAreFoundUnderTheGuestsAddresses) {
    remap(3, 20);
    remap(4, 90);
    track();
    device_writes(4);
    EXPECT_EQ(found(), (std::set<uint64_t>{90}));
    EXPECT_EQ(found(), (std::set<uint64_t>{}));
    remap(5, 33);  // while the log runs
    device_writes(5);
    device_writes(3);
    EXPECT_EQ(found(SyncPhase::Final), (std::set<uint64_t>{20, 33}));
}

TEST_P(SpaceTest, WhatWasWrittenIsRescuedWhenItsTranslationGoes) {
    remap(3, 20);
    remap(4, 21);
    track();
    device_writes(3);
    take_away(3);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{20}));
    device_writes(4);
    remap(4, 40);  // the same address, another page
    device_writes(4);
    EXPECT_EQ(found(), (std::set<uint64_t>{21, 40}));
}

TEST_P(SpaceTest, WithoutTrackingNothingIsAskedWhenATranslationGoes) {
    remap(3, 20);
    device_writes(3);
    (void)rescued();
    take_away(3);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{}));
    EXPECT_EQ(queries(), 0u);
}

TEST_P(SpaceTest, TranslationThatCannotBeAskedAboutGoesAsDirty) {
    remap(3, 20);
    remap(4, 21);
    track();
    fail_queries();
    take_away(3);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{20}));
    EXPECT_FALSE(device_writes(3));
    const GuestPages pages = sync(SyncPhase::Final);
    EXPECT_EQ(pages.untracked, (std::set<uint64_t>{21}));
    EXPECT_TRUE(pages.dirty.empty());
}

TEST_P(SpaceTest, WhatNobodyTracksIsAllThatIsOrWasMapped) {
    remap(3, 20);
    remap(4, 21);
    track(DirtySource::Nobody);
    EXPECT_EQ(sync(SyncPhase::Precopy).untracked, (std::set<uint64_t>{20, 21}));
    take_away(3);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{20}));
    EXPECT_EQ(sync(SyncPhase::Final).untracked, (std::set<uint64_t>{21}));
    EXPECT_EQ(queries(), 0u);
}

TEST_P(SpaceTest, OptedOutDeviceIsAskedWhenItsTranslationsGoAndAfterTheStop) {
    remap(3, 20);
    remap(4, 21);
    track(DirtySource::Iommu, PrecopyQueries::No);
    device_writes(3);
    device_writes(4);
    EXPECT_TRUE(sync(SyncPhase::Precopy).dirty.empty());
    EXPECT_EQ(queries(), 0u);
    take_away(4);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{21}));
    EXPECT_EQ(found(SyncPhase::Final), (std::set<uint64_t>{20}));
}

TEST_P(SpaceTest, TranslationForReadingIsNeitherWrittenNorAskedAbout) {
    remap(3, 20, RemappingIommu::kReadable);
    track();
    EXPECT_FALSE(device_writes(3));
    EXPECT_EQ(found(SyncPhase::Final), (std::set<uint64_t>{}));
    EXPECT_EQ(queries(), 0u);
    take_away(3);
    EXPECT_EQ(rescued(), (std::set<uint64_t>{}));
}

// Whatever the guest does, no page is lost that was written since it was last found.
TEST_P(SpaceTest, NoWriteIsLostWhileTheGuestChangesItsTable) {
    track();
    std::mt19937 random(11);
    const auto below = [&random](uint64_t limit) { return random() % limit; };
    std::map<uint64_t, uint64_t> table;
    std::set<uint64_t> written;
    for (int step = 0; step < 20'000; ++step) {
        const uint64_t entry = below(kEntries);
        switch (below(4)) {
            case 0:
                table[entry] = kTablePages + below(kGuestPages - kTablePages);
                remap(entry, table[entry]);
                break;
            case 1:
                table.erase(entry);
                take_away(entry);
                break;
            case 2:
                EXPECT_EQ(device_writes(entry), table.contains(entry));
                if (table.contains(entry)) written.insert(table[entry]);
                break;
            default:
                if (below(8) != 0) break;
                EXPECT_EQ(found(), written) << step;
                written.clear();
        }
        if (HasFailure()) return;
    }
    EXPECT_EQ(found(SyncPhase::Final), written);
}

// The guest changes its table on a CPU's thread while the migration asks on its own.
TEST_P(SpaceTest, GuestAndMigrationDoNotWaitForEachOtherForEver) {
    track();
    std::atomic<bool> over = false;
    std::set<uint64_t> written;
    std::jthread guest([&] {
        for (uint64_t step = 0; step < 3000; ++step) {
            const uint64_t entry = step % 7;
            const uint64_t page = kTablePages + step % (kGuestPages - kTablePages);
            iommu_.write_entry(entry, page * kPageSize, kRw);
            if (!iommu_.invalidate(entry, 1)) break;
            if (device_writes(entry)) written.insert(page);
        }
        over = true;
    });
    std::set<uint64_t> all;
    while (!over) all.merge(found());
    guest.join();
    all.merge(found(SyncPhase::Final));
    EXPECT_EQ(written.size(), kGuestPages - kTablePages);
    EXPECT_EQ(all, written);
}

TEST_P(SpaceTest, ContainerThatComesLaterGetsWhatIsMapped) {
    io_.reset();
    remap(3, 20);
    remap(4, 21);
    EXPECT_EQ(mapped_bytes(), 0u);
    open();
    EXPECT_EQ(mapped_bytes(), 2 * kPageSize);
    EXPECT_TRUE(device_writes(4));
    io_.reset();
    take_away(3);  // nobody is left to tell
    open();
    EXPECT_EQ(mapped_bytes(), kPageSize);
}

TEST_P(SpaceTest, ContainerThatCannotTakeItAllLeavesNothing) {
    io_.reset();
    remap(3, 20);
    remap(4, 21);
    kernel_.type1().map_limit_bytes = kPageSize;
    kernel_.iommufd().map_limit_bytes = kPageSize;
    constexpr std::string_view kPath = "/sys/bus/platform/devices/ferry.0";
    const auto device = GetParam() == Backend::Type1 ? group_host_.open_device(kPath)
                                                     : node_host_.open_device(kPath);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().errnum(), ENOMEM);
    EXPECT_EQ(kernel_.open_fds(), 0u);
}

TEST_P(SpaceTest, NonsenseIsRefusedAndChangesNothing) {
    const auto map = [&](uint64_t iova, uint64_t gpa, uint64_t length) {
        return space_.map(
            {.iova = iova, .gpa = gpa, .length = length, .access = MapAccess::ReadWrite});
    };
    EXPECT_EQ(test::errno_of(map(1, 0, kPageSize)), EINVAL);
    EXPECT_EQ(test::errno_of(map(0, 1, kPageSize)), EINVAL);
    EXPECT_EQ(test::errno_of(map(0, 0, 0)), EINVAL);
    EXPECT_EQ(test::errno_of(map(0 - kPageSize, 0, 2 * kPageSize)), EINVAL);
    EXPECT_EQ(map(0, kGuestPages * kPageSize, kPageSize).error().kind(),
              ErrorKind::InvalidArgument);  // no RAM there
    EXPECT_FALSE(map(0, (kGuestPages - 1) * kPageSize, 2 * kPageSize));
    EXPECT_EQ(mapped_bytes(), 0u);
    ASSERT_TRUE(map(0, 0, 4 * kPageSize));
    EXPECT_EQ(test::errno_of(map(3 * kPageSize, 0, kPageSize)), EEXIST);
    EXPECT_EQ(test::errno_of(space_.unmap(0, kPageSize)), EINVAL);  // cut
    EXPECT_EQ(test::errno_of(space_.unmap(kPageSize, 8 * kPageSize)), EINVAL);
    EXPECT_TRUE(space_.unmap(8 * kPageSize, kPageSize));  // a hole
    ASSERT_TRUE(map(0 - kPageSize, 0, kPageSize));
    EXPECT_TRUE(space_.unmap(0 - 2 * kPageSize, 2 * kPageSize));
    EXPECT_TRUE(space_.unmap(0, 4 * kPageSize));
    EXPECT_EQ(mapped_bytes(), 0u);
}

TEST_P(SpaceTest, TranslationOverTwoBlocksIsMappedInPieces) {
    auto* other = *memory_.add_block(*system::RamBlock::create_memfd("other", 2 * kPageSize));
    ASSERT_TRUE(memory_.map(*other, kGuestPages * kPageSize, 0, 2 * kPageSize));
    ASSERT_TRUE(space_.map({.iova = kBase,
                            .gpa = (kGuestPages - 1) * kPageSize,
                            .length = 3 * kPageSize,
                            .access = MapAccess::ReadWrite}));
    track();
    device_writes(0);
    device_writes(2);
    EXPECT_EQ(found(), (std::set<uint64_t>{kGuestPages - 1, kGuestPages + 1}));
    ASSERT_TRUE(space_.unmap(kBase, 3 * kPageSize));
    EXPECT_EQ(mapped_bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Backends, SpaceTest, testing::Values(Backend::Type1, Backend::Iommufd),
                         [](const auto& one) {
                             return one.param == Backend::Type1 ? "Type1" : "Iommufd";
                         });

}  // namespace
}  // namespace ferry::vfio
