// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>

#include "migration/ram-dirty.h"

namespace ferry::migration {
namespace {

using system::Gpa;
using system::kPageSize;
using util::Bitmap;

using Pages = std::set<uint64_t>;

// Calls back with the sink.
class Tracker final : public system::DirtyTracker {
 public:
    std::string_view name() const override { return "tracker"; }
    Result<> dirty_log_start() override { return {}; }
    void dirty_log_stop() override {}
    void dirty_log_sync(system::SyncPhase, system::DirtySink& sink) override { report(sink); }
    std::function<void(system::DirtySink&)> report = [](system::DirtySink&) {};
};

// One block of 512 pages. Its pages 0-127 lie at 16 MiB, 128-511 at 64 MiB.
constexpr uint64_t kPages = 512;
constexpr Gpa kLow = 16 << 20;
constexpr Gpa kHigh = 64 << 20;

class Ram {
 public:
    Ram() {
        block = *memory.add_block(*system::RamBlock::create_memfd("ram", kPages * kPageSize));
        EXPECT_TRUE(memory.map(*block, kLow, 0, 128 * kPageSize));
        EXPECT_TRUE(memory.map(*block, kHigh, 128 * kPageSize, 384 * kPageSize));
        registration_ = memory.add_tracker(tracker);
        map.emplace(memory);
        while (map->take(kPages).count != 0) {
        }
    }
    // What one report makes dirty.
    Pages dirty_after(std::function<void(system::DirtySink&)> report) {
        tracker.report = std::move(report);
        const uint64_t found = map->sync(system::SyncPhase::Precopy);
        EXPECT_EQ(found, map->dirty_pages());
        Pages pages = take_all();
        EXPECT_EQ(found, pages.size());
        return pages;
    }
    Pages take_all() {
        Pages pages;
        for (auto run = map->take(7); run.count != 0; run = map->take(7)) {
            EXPECT_LE(run.count, 7U);
            for (uint64_t i = 0; i < run.count; ++i) {
                EXPECT_TRUE(pages.insert(run.first + i).second);
            }
        }
        EXPECT_EQ(map->dirty_pages(), 0U);
        return pages;
    }

    system::GuestMemory memory;
    system::RamBlock* block = nullptr;
    Tracker tracker;
    std::optional<RamDirtyMap> map;

 private:
    util::Registration registration_;
};

Pages range(uint64_t first, uint64_t count) {
    Pages out;
    for (uint64_t i = 0; i < count; ++i) out.insert(first + i);
    return out;
}

Bitmap bits(uint64_t size, const Pages& set) {
    Bitmap out(size);
    for (const uint64_t bit : set) out.set(bit);
    return out;
}

// The map counts as it goes; a model counts what there is.
TEST(RamDirtyMap, CountsAgreeWithAModelWhateverIsReportedAndTaken) {
    std::mt19937 random(5);
    Ram ram;
    Pages dirty;
    Pages untracked;
    const auto mark = [](Pages& pages, Gpa first, uint64_t count) {
        for (Gpa gpa = first; gpa < first + count * kPageSize; gpa += kPageSize) {
            if (gpa >= kLow && gpa < kLow + 128 * kPageSize) {
                pages.insert((gpa - kLow) / kPageSize);
            } else if (gpa >= kHigh && gpa < kHigh + 384 * kPageSize) {
                pages.insert(128 + (gpa - kHigh) / kPageSize);
            }
        }
    };
    const auto some_place = [&random] {
        return (random() % 2 == 0 ? kLow : kHigh) + random() % 400 * kPageSize;
    };
    for (int round = 0; round < 2000; ++round) {
        const size_t before = dirty.size();
        ram.tracker.report = [&](system::DirtySink& sink) {
            const Gpa at = some_place();
            const uint64_t count = random() % 9;
            sink.mark_dirty(at, count * kPageSize);
            mark(dirty, at, count);
            const Gpa first = some_place();
            Bitmap pages(1 + random() % 300);
            for (uint64_t bit = random() % 70; bit < pages.size(); bit += 70) {
                pages.set(bit);
                mark(dirty, first + bit * kPageSize, 1);
            }
            sink.mark_dirty_pages(first, kPageSize, pages);
            if (round % 5 != 0) return;
            const Gpa lost = some_place();
            sink.mark_untracked(lost, count * kPageSize);
            mark(untracked, lost, count);
        };
        const uint64_t found = ram.map->sync(system::SyncPhase::Precopy);
        ASSERT_EQ(found, dirty.size() - before);
        if (round % 50 == 49) {
            ram.map->add_untracked();
            dirty.merge(untracked);
            untracked.clear();
        }
        for (int i = 0; i < 3; ++i) {
            const auto run = ram.map->take(1 + random() % 40);
            for (uint64_t page = run.first; page < run.first + run.count; ++page) {
                ASSERT_EQ(dirty.erase(page), 1U);
            }
        }
        Pages pending = dirty;
        pending.insert(untracked.begin(), untracked.end());
        ASSERT_EQ(ram.map->dirty_pages(), dirty.size()) << round;
        ASSERT_EQ(ram.map->untracked_pages(), untracked.size()) << round;
        ASSERT_EQ(ram.map->pending_pages(), pending.size()) << round;
    }
}

TEST(RamDirtyMap, ReportsOutsideOfRamAreIgnored) {
    Ram ram;
    EXPECT_TRUE(ram.dirty_after([](auto& sink) {
                       sink.mark_dirty(0, kLow);
                       sink.mark_dirty(kLow + 128 * kPageSize, kPageSize);
                       sink.mark_dirty(UINT64_MAX, UINT64_MAX);
                       sink.mark_dirty(kLow, 0);
                       sink.mark_dirty_pages(UINT64_MAX - 5, kPageSize, bits(100, range(0, 100)));
                       sink.mark_dirty_pages(0, UINT64_MAX, bits(100, {1, 99}));
                       sink.mark_dirty_pages(kLow, 0, bits(100, range(0, 100)));
                   })
                    .empty());
}

TEST(RamDirtyMap, RangesAreCutAtTheEdgesOfRam) {
    Ram ram;
    EXPECT_EQ(ram.dirty_after([](auto& sink) { sink.mark_dirty(0, UINT64_MAX); }),
              range(0, kPages));
    EXPECT_EQ(ram.dirty_after([](auto& sink) { sink.mark_dirty(kLow - 1, 2); }), range(0, 1));
    EXPECT_EQ(ram.dirty_after([](auto& sink) {
        sink.mark_dirty(kLow + 127 * kPageSize, kHigh - kLow - 126 * kPageSize);
    }),
              range(127, 2));
}

TEST(RamDirtyMap, EveryTouchedPageIsMarked) {
    Ram ram;
    EXPECT_EQ(ram.dirty_after([](auto& sink) { sink.mark_dirty(kLow + kPageSize - 1, 2); }),
              range(0, 2));
    EXPECT_EQ(ram.dirty_after([](auto& sink) { sink.mark_dirty(kHigh + kPageSize, kPageSize); }),
              range(129, 1));
}

TEST(RamDirtyMap, BitmapsOfGuestPagesLandWhereTheyBelong) {
    Ram ram;
    // From 3 pages before RAM on, over the end of the first mapping.
    EXPECT_EQ(ram.dirty_after([](auto& sink) {
        sink.mark_dirty_pages(kLow - 3 * kPageSize, kPageSize,
                              bits(200, {0, 2, 3, 4, 66, 67, 130, 131, 199}));
    }),
              (Pages{0, 1, 63, 64, 127}));
    EXPECT_EQ(ram.dirty_after([](auto& sink) {
        sink.mark_dirty_pages(kHigh + 5 * kPageSize, kPageSize, bits(3, {0, 2}));
    }),
              (Pages{133, 135}));
}

TEST(RamDirtyMap, BitmapsOfLargerAndSmallerPagesMarkAllTheyCover) {
    Ram ram;
    EXPECT_EQ(ram.dirty_after([](auto& sink) {
        sink.mark_dirty_pages(kLow, 16 * kPageSize, bits(9, {0, 7, 8}));
    }),
              [] {
                  Pages out = range(0, 16);
                  out.merge(range(112, 16));
                  return out;
              }());
    EXPECT_EQ(ram.dirty_after(
                  [](auto& sink) { sink.mark_dirty_pages(kLow, 1024, bits(16, {3, 4, 15})); }),
              (Pages{0, 1, 3}));
    EXPECT_EQ(ram.dirty_after(
                  [](auto& sink) { sink.mark_dirty_pages(kLow + 512, kPageSize, bits(2, {1})); }),
              (Pages{1, 2}));
}

TEST(RamDirtyMap, BlocksLogIsCollectedOnce) {
    Ram ram;
    ram.block->mark_dirty(300 * kPageSize, 1);
    EXPECT_EQ(ram.dirty_after([](auto&) {}), range(300, 1));
    EXPECT_TRUE(ram.dirty_after([](auto&) {}).empty());
}

TEST(RamDirtyMap, WhatIsDirtyAlreadyIsNotFoundAgain) {
    Ram ram;
    ram.tracker.report = [](auto& sink) { sink.mark_dirty(kLow, 4 * kPageSize); };
    EXPECT_EQ(ram.map->sync(system::SyncPhase::Precopy), 4U);
    EXPECT_EQ(ram.map->sync(system::SyncPhase::Precopy), 0U);
    EXPECT_EQ(ram.map->dirty_pages(), 4U);
}

TEST(RamDirtyMap, UntrackedPagesBecomeDirtyOnlyWhenAskedFor) {
    Ram ram;
    ram.tracker.report = [](auto& sink) {
        sink.mark_untracked(kHigh, 10 * kPageSize);
        sink.mark_dirty(kHigh + 9 * kPageSize, 2 * kPageSize);
    };
    EXPECT_EQ(ram.map->sync(system::SyncPhase::Precopy), 2U);
    EXPECT_EQ(ram.map->dirty_pages(), 2U);
    EXPECT_EQ(ram.map->untracked_pages(), 10U);
    EXPECT_EQ(ram.map->pending_pages(), 11U);
    EXPECT_EQ(ram.take_all(), range(137, 2));
    EXPECT_EQ(ram.map->pending_pages(), 10U);
    ram.map->add_untracked();
    EXPECT_EQ(ram.take_all(), range(128, 10));
    EXPECT_EQ(ram.map->pending_pages(), 0U);
}

TEST(RamDirtyMap, TakingGoesOnBehindTheLastRunAndStartsOver) {
    Ram ram;
    ram.tracker.report = [](auto& sink) {
        sink.mark_dirty(kLow, 2 * kPageSize);
        sink.mark_dirty(kLow + 100 * kPageSize, kPageSize);
    };
    ram.map->sync(system::SyncPhase::Precopy);
    EXPECT_EQ(ram.map->take(64).first, 0U);
    ram.map->sync(system::SyncPhase::Precopy);  // 0 and 1 are dirty again, behind the cursor
    EXPECT_EQ(ram.map->take(64).first, 100U);
    const RamDirtyMap::Page again = ram.map->take(64);
    EXPECT_EQ(again.first, 0U);
    EXPECT_EQ(again.count, 2U);
    EXPECT_EQ(ram.map->take(64).count, 0U);
}

}  // namespace
}  // namespace ferry::migration
