// SPDX-License-Identifier: BSD-2-Clause
// RAM from one VM to another: what is sent when, and what arrives.
#include <algorithm>
#include <random>

#include "migration/multifd-send.h"
#include "migration/ram.h"
#include "migration/zero-page.h"
#include "tests/unit/migration/savevm-support.h"
#include "util/try.h"

namespace ferry::migration {
namespace {

using system::Gpa;
using system::kPageSize;
using test::ByteVector;
using test::hex;
using test::join;
using test::TestVm;

constexpr std::byte kMark{0x5a};

// Reports what a test tells it to, once or at every sync.
class ScriptedTracker final : public system::DirtyTracker {
 public:
    explicit ScriptedTracker(std::string name = "tracker") : name_(std::move(name)) {}
    std::string_view name() const override { return name_; }
    Result<> dirty_log_start() override {
        log.emplace_back("start");
        if (start_error) return *start_error;
        return {};
    }
    void dirty_log_stop() override { log.emplace_back("stop"); }
    void dirty_log_sync(system::SyncPhase phase, system::DirtySink& sink) override {
        log.emplace_back(phase == system::SyncPhase::Final ? "final" : "sync");
        if (dirty_length != 0) sink.mark_dirty(dirty_first, dirty_length);
        if (untracked_length != 0) sink.mark_untracked(untracked_first, untracked_length);
        dirty_length = 0;
    }

    std::vector<std::string> log;
    std::optional<Error> start_error;
    Gpa dirty_first = 0, untracked_first = 0;
    uint64_t dirty_length = 0, untracked_length = 0;

 private:
    std::string name_;
};

// A source with one block and one tracker, driven step by step.
class Source {
 public:
    explicit Source(uint64_t pages) : block(vm.add_ram("ram", pages * kPageSize, 0)) {
        vm.register_ram();
    }
    ~Source() { vm.cleanup(); }

    // Bytes that a step puts on the wire.
    ByteVector step(Result<> (TestVm::*phase)(SaveStream&)) {
        EXPECT_TRUE((vm.*phase)(out_));
        EXPECT_TRUE(out_.flush());
        return std::exchange(sink_, {}).take();
    }
    void fill(uint64_t page, std::byte value = kMark) {
        const ByteVector data(kPageSize, value);
        EXPECT_TRUE(vm.memory.write(page * kPageSize, data));
    }
    uint64_t sent() const { return vm.stats.normal_pages + vm.stats.zero_pages; }

    TestVm vm;
    system::RamBlock& block;
    ScriptedTracker tracker;

 private:
    MemorySink sink_;
    SaveStream out_{sink_};
    util::Registration registration_ = vm.memory.add_tracker(tracker);
};

void expect_same_ram(const system::GuestMemory& a, const system::GuestMemory& b) {
    for (size_t i = 0; i < a.blocks().size(); ++i) {
        EXPECT_TRUE(std::ranges::equal(a.blocks()[i]->host(), b.blocks()[i]->host()))
            << a.blocks()[i]->name();
    }
}

// --- Trackers

TEST(Ram, TrackerThatCannotStartIsNamedAndAllStartedOnesAreStoppedOnce) {
    TestVm vm;
    vm.add_ram("ram", kPageSize, 0);
    vm.register_ram();
    ScriptedTracker first("kvm");
    ScriptedTracker second("container 3");
    ScriptedTracker third("unreached");
    second.start_error = make_errno(95, "ioctl(DIRTY_TRACKING)");
    const auto a = vm.memory.add_tracker(first);
    const auto b = vm.memory.add_tracker(second);
    const auto c = vm.memory.add_tracker(third);
    MemorySink sink;
    SaveStream out(sink);
    const auto result = vm.setup(out);
    EXPECT_NE(result.error().message().find("container 3: starting to track dirty pages: ioctl"),
              std::string::npos);
    vm.cleanup(SaveVMHandlers::Outcome::Failed);
    EXPECT_EQ(first.log, (std::vector<std::string>{"start", "stop"}));
    EXPECT_EQ(second.log, (std::vector<std::string>{"start", "stop"}));
    EXPECT_TRUE(third.log.empty());
}

TEST(Ram, TrackersAreStartedBeforeTheFirstSyncAndAskedFinallyOnce) {
    TestVm vm;
    vm.add_ram("ram", kPageSize, 0);
    vm.register_ram();
    ScriptedTracker tracker;
    const auto registration = vm.memory.add_tracker(tracker);
    vm.save(1);
    EXPECT_EQ(tracker.log, (std::vector<std::string>{"start", "sync", "sync", "final", "stop"}));
    EXPECT_EQ(vm.passes, (std::vector<uint64_t>{1, 2, 3}));
    EXPECT_EQ(vm.stats.dirty_sync_count, 3U);
}

TEST(Ram, SecondAttemptBeginsWithAllPagesAgain) {
    Source source(3);
    source.fill(0);
    source.vm.save(1);
    EXPECT_EQ(source.sent(), 3U);
    source.vm.save(1);
    EXPECT_EQ(source.sent(), 3U);
    EXPECT_EQ(source.vm.stats.dirty_sync_count, 3U);
}

// --- Page channels

// The main channel may be read later than any page channel: what went out on it must be behind a
// barrier before the same page goes out on one of those.
TEST(Ram, ZeroPagesOnTheMainChannelAreBehindABarrierToo) {
    Source source(4);
    auto [near, far] = make_memory_channel_pair("page-0");
    std::vector<std::unique_ptr<MigrationChannel>> channels;
    channels.push_back(std::move(near));
    Parameters legacy;
    legacy.zero_page_detection = static_cast<uint64_t>(ZeroPageDetection::Legacy);
    auto pages = MultifdSender::start(channels, Uuid{}, legacy, source.vm.env.env);
    ASSERT_TRUE(pages);
    source.vm.session.set_parameters(legacy);
    source.vm.session.pages = pages->get();
    const auto barriers = [](const ByteVector& bytes) {
        const ByteVector flush = hex("00*6 02 00");
        size_t count = 0;
        for (auto at = bytes.begin();; ++count) {
            at = std::search(at, bytes.end(), flush.begin(), flush.end());
            if (at == bytes.end()) return count;
            ++at;
        }
    };
    source.step(&TestVm::setup);
    source.step(&TestVm::iterate);  // all zeros, on the main channel
    source.tracker.dirty_length = kPageSize;
    ASSERT_TRUE(source.vm.ram->state_pending_exact());
    source.block.host()[0] = kMark;
    EXPECT_EQ(barriers(source.step(&TestVm::iterate)), 1U);
    for (const auto& channel : channels) channel->shutdown(Error(ErrorKind::Cancelled, "over"));
}

// --- Bytes

TEST(Ram, RecordsNameTheBlockOnlyWhenItChangesAlsoAcrossSections) {
    TestVm vm;
    system::RamBlock& a = vm.add_ram("m0", 2 * kPageSize, 0);
    vm.add_ram("m1", kPageSize, 1 << 20);
    a.host()[kPageSize] = kMark;
    vm.register_ram();
    MemorySink sink;
    SaveStream out(sink);
    ASSERT_TRUE(vm.setup(out));
    ASSERT_TRUE(vm.iterate(out));
    a.mark_dirty(0, 1);
    ASSERT_TRUE(vm.ram->state_pending_exact());
    ASSERT_TRUE(vm.iterate(out));
    a.mark_dirty(0, 1);
    ASSERT_TRUE(vm.complete(out));
    ASSERT_TRUE(out.flush());
    vm.cleanup();
    const ByteVector expected =
        hex("51 45 56 4d 00000003 07 00000004 'none'"
            "01 00000001 03 'ram' 00000000 00000004"
            "   0000000000003004 02 'm0' 0000000000002000 02 'm1' 0000000000001000"
            "   0000000000000010 7e 00000001"
            "02 00000001"
            "   0000000000000002 02 'm0' 00"
            "   0000000000001028 5a 00*4095"
            "   0000000000000002 02 'm1' 00"
            "   0000000000000010 7e 00000001"
            "02 00000001"
            "   0000000000000002 02 'm0' 00"
            "   0000000000000010 7e 00000001"
            "08 000b 0000"
            "03 00000001"
            "   0000000000000022 00"
            "   0000000000000010 7e 00000001"
            "00 06");
    EXPECT_TRUE(std::ranges::equal(sink.view().first(expected.size()), expected));
}

TEST(Ram, PagesAreSentOutOfGuestMemoryWithoutACopy) {
    class Sink final : public ByteSink {
     public:
        explicit Sink(ConstBytes guest) : guest_(guest) {}
        Result<> write_all(std::span<const ConstBytes> parts) override {
            for (const ConstBytes part : parts) {
                const bool inside =
                    part.data() >= guest_.data() && part.data() < guest_.data() + guest_.size();
                (inside ? referenced : copied) += part.size();
            }
            return {};
        }
        size_t referenced = 0, copied = 0;

     private:
        ConstBytes guest_;
    };
    Source source(600);
    for (uint64_t page = 0; page < 600; ++page) source.fill(page);
    Sink sink(source.block.host());
    SaveStream out(sink);
    ASSERT_TRUE(source.vm.setup(out));
    ASSERT_TRUE(source.vm.iterate(out));
    ASSERT_TRUE(out.flush());
    EXPECT_EQ(sink.referenced, 600 * kPageSize);
    EXPECT_LT(sink.copied, 600 * 10U);
}

// --- How much per call

TEST(Ram, FullRoundStillSendsOneBatch) {
    Source source(1000);
    source.vm.session.full = true;
    source.step(&TestVm::setup);
    source.step(&TestVm::iterate);
    const uint64_t batch = source.sent();
    EXPECT_GT(batch, 0U);
    EXPECT_LT(batch, 1000U);
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.sent(), 2 * batch);
    source.vm.session.full = false;
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.sent(), 1000U);
}

TEST(Ram, IterateTellsWhetherAnythingIsLeft) {
    Source source(1000);
    source.step(&TestVm::setup);
    MemorySink sink;
    SaveStream out(sink);
    source.vm.session.full = true;
    EXPECT_EQ(*source.vm.ram->save_live_iterate(out), IterateStatus::More);
    source.vm.session.full = false;
    EXPECT_EQ(*source.vm.ram->save_live_iterate(out), IterateStatus::Done);
    ASSERT_TRUE(out.flush());
    sink.take();
    EXPECT_EQ(*source.vm.ram->save_live_iterate(out), IterateStatus::Done);
    ASSERT_TRUE(out.flush());
    EXPECT_EQ(sink.take(), hex("0000000000000010"));
}

TEST(Ram, BrokenStreamEndsAPassEarly) {
    class Broken final : public ByteSink {
        Result<> write_all(std::span<const ConstBytes>) override {
            return make_error(ErrorKind::PeerClosed, "connection reset");
        }
    } sink;
    Source source(100'000);
    source.step(&TestVm::setup);
    SaveStream out(sink, 64);
    EXPECT_EQ(source.vm.ram->save_live_iterate(out).error().message(), "connection reset");
    EXPECT_LT(source.sent(), 1000U);
}

// --- Statistics

TEST(Ram, PendingFallsWithWhatIsSentAndRisesWithWhatIsWritten) {
    Source source(10);
    source.step(&TestVm::setup);
    EXPECT_EQ(source.vm.ram->state_pending_estimate(), 10 * kPageSize);
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.vm.ram->state_pending_estimate(), 0U);
    source.fill(3);
    EXPECT_EQ(source.vm.ram->state_pending_estimate(), 0U);
    EXPECT_EQ(*source.vm.ram->state_pending_exact(), kPageSize);
    EXPECT_EQ(source.vm.stats.remaining_bytes, kPageSize);
    EXPECT_EQ(source.vm.stats.total_bytes, 10 * kPageSize);
}

TEST(Ram, DirtyRateIsPagesFoundPerSecondOfTheClock) {
    Source source(100);
    source.step(&TestVm::setup);
    source.step(&TestVm::iterate);
    for (uint64_t page = 0; page < 50; ++page) source.fill(page);
    source.vm.env.clock.advance(std::chrono::milliseconds(500));
    ASSERT_TRUE(source.vm.ram->state_pending_exact());
    EXPECT_EQ(source.vm.stats.dirty_pages_per_second, 100U);
    source.vm.env.clock.advance(std::chrono::seconds(1));
    ASSERT_TRUE(source.vm.ram->state_pending_exact());
    EXPECT_EQ(source.vm.stats.dirty_pages_per_second, 0U);
}

TEST(Ram, SendRateIsPagesPerSecondOfTheClock) {
    Source source(1000);
    source.step(&TestVm::setup);
    source.vm.env.clock.advance(std::chrono::milliseconds(100));
    source.vm.session.full = true;
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.vm.stats.pages_per_second, source.sent() * 10);
}

TEST(Ram, ZeroAndNormalPagesAreCountedApart) {
    Source source(5);
    source.fill(1);
    source.fill(4);
    source.vm.save(1);
    EXPECT_EQ(source.vm.stats.normal_pages, 2U);
    EXPECT_EQ(source.vm.stats.zero_pages, 3U);
    EXPECT_EQ(source.vm.stats.remaining_bytes, 0U);
}

// --- Pages that nobody tracks

TEST(Ram, UntrackedPagesGoOnceBeforeThePauseAndOnceInIt) {
    Source source(10);
    for (uint64_t page = 0; page < 10; ++page) source.fill(page);
    source.tracker.untracked_first = 2 * kPageSize;
    source.tracker.untracked_length = 3 * kPageSize;
    source.step(&TestVm::setup);
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.sent(), 10U);
    for (int pass = 0; pass < 5; ++pass) {
        // Never "clean", but not sent again either.
        EXPECT_EQ(*source.vm.ram->state_pending_exact(), 3 * kPageSize);
        source.step(&TestVm::iterate);
        EXPECT_EQ(source.sent(), 10U);
    }
    source.step(&TestVm::complete);
    EXPECT_EQ(source.sent(), 13U);
    EXPECT_EQ(source.vm.stats.untracked_bytes, 3 * kPageSize);
    EXPECT_EQ(source.vm.stats.remaining_bytes, 0U);
}

TEST(Ram, UntrackedAndDirtyCountsOnce) {
    Source source(10);
    source.tracker.untracked_length = 4 * kPageSize;
    source.step(&TestVm::setup);
    EXPECT_EQ(source.vm.ram->state_pending_estimate(), 10 * kPageSize);
    source.step(&TestVm::iterate);
    EXPECT_EQ(source.vm.ram->state_pending_estimate(), 4 * kPageSize);
    source.fill(3);
    source.fill(4);
    EXPECT_EQ(*source.vm.ram->state_pending_exact(), 5 * kPageSize);
    source.step(&TestVm::complete);
    EXPECT_EQ(source.sent(), 15U);
}

TEST(Ram, OnceUntrackedStaysUntrackedForTheAttempt) {
    Source source(10);
    source.tracker.untracked_length = 4 * kPageSize;
    source.step(&TestVm::setup);
    source.step(&TestVm::iterate);
    source.tracker.untracked_length = 0;  // what was written before can still not be told
    EXPECT_EQ(*source.vm.ram->state_pending_exact(), 4 * kPageSize);
    source.step(&TestVm::complete);
    EXPECT_EQ(source.sent(), 14U);
}

TEST(Ram, UntrackedMemoryIsWarnedOfOncePerAttempt) {
    Source source(1024);
    source.tracker.untracked_length = 512 * kPageSize;
    source.vm.save(3);
    auto lines = source.vm.env.log.lines();
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0].first, util::LogLevel::Warning);
    EXPECT_NE(lines[0].second.find("2 MiB"), std::string::npos);
    source.vm.save(1);
    EXPECT_EQ(source.vm.env.log.lines().size(), 2U);
}

// --- Both sides

// Two VMs with the same RAM, of which the first has run.
struct Pair {
    Pair() {
        for (TestVm* vm : {&from, &to}) {
            vm->add_ram("low", 64 * kPageSize, 0);
            vm->add_ram("high", 200 * kPageSize, Gpa{1} << 32);
            vm->register_ram();
        }
        for (int i = 0; i < 100; ++i) scribble();
    }
    // Writes a few bytes somewhere, as the VMM or an emulated guest does.
    Gpa scribble() {
        const uint64_t page = random() % 264;
        const Gpa at = (page < 64 ? page * kPageSize : (Gpa{1} << 32) + (page - 64) * kPageSize) +
                       random() % (kPageSize - 4);
        const std::array data{static_cast<std::byte>(random()), static_cast<std::byte>(random())};
        EXPECT_TRUE(from.memory.write(at, data));
        return at;
    }
    TestVm from, to;
    std::mt19937 random{42};
};

TEST(RamBothSides, MemoryIsEqualAfterPassesWithWritesInBetween) {
    Pair vms;
    const ByteVector stream = vms.from.save(4, [&](unsigned) {
        for (int i = 0; i < 20; ++i) vms.scribble();
    });
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    expect_same_ram(vms.from.memory, vms.to.memory);
}

TEST(RamBothSides, PageThatBecameZeroAgainIsClearedThere) {
    Pair vms;
    const ByteVector stream = vms.from.save(1, [&](unsigned) {
        for (uint64_t page = 0; page < 64; ++page) {
            const ByteVector zeros(kPageSize);
            EXPECT_TRUE(vms.from.memory.write(page * kPageSize, zeros));
        }
    });
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    expect_same_ram(vms.from.memory, vms.to.memory);
}

TEST(RamBothSides, DestinationThatRanBeforeIsOverwrittenWhole) {
    Pair vms;
    for (const auto& block : vms.to.memory.blocks()) {
        std::ranges::fill(block->host(), std::byte{0xee});
        block->mark_used();
    }
    const ByteVector stream = vms.from.save(1);
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    expect_same_ram(vms.from.memory, vms.to.memory);
}

TEST(RamBothSides, LostDirtyMarkWouldBeSeen) {
    Pair vms;
    const ByteVector stream = vms.from.save(2, [&](unsigned round) {
        if (round == 1) vms.from.memory.blocks()[0]->host()[5] ^= std::byte{1};  // nobody told
    });
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    EXPECT_FALSE(
        std::ranges::equal(vms.from.memory.blocks()[0]->host(), vms.to.memory.blocks()[0]->host()));
}

TEST(RamBothSides, WhatATrackerReportsAtTheEndArrives) {
    Pair vms;
    ScriptedTracker tracker;
    const auto registration = vms.from.memory.add_tracker(tracker);
    const ByteVector stream = vms.from.save(2, [&](unsigned) {
        const system::RamBlock& high = *vms.from.memory.blocks()[1];
        high.host()[7 * kPageSize + 3] ^= std::byte{1};  // DMA
        tracker.dirty_first = (Gpa{1} << 32) + 7 * kPageSize;
        tracker.dirty_length = kPageSize;
    });
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    expect_same_ram(vms.from.memory, vms.to.memory);
}

TEST(RamBothSides, UntrackedWritesArriveInThePause) {
    Pair vms;
    ScriptedTracker tracker;
    tracker.untracked_length = UINT64_MAX;
    const auto registration = vms.from.memory.add_tracker(tracker);
    const ByteVector stream = vms.from.save(
        2, [&](unsigned) { vms.from.memory.blocks()[1]->host()[9 * kPageSize] ^= std::byte{1}; });
    ASSERT_EQ(vms.to.load_error(stream), "(accepted)");
    expect_same_ram(vms.from.memory, vms.to.memory);
}

// --- Zero pages

TEST(ZeroPage, EveryBitOfThePageCounts) {
    alignas(64) std::array<std::byte, kPageSize> page{};
    EXPECT_TRUE(is_zero_page(page));
    for (size_t i = 0; i < page.size(); ++i) {
        page[i] = std::byte{static_cast<uint8_t>(1U << (i % 8))};
        ASSERT_FALSE(is_zero_page(page)) << i;
        page[i] = std::byte{0};
    }
    EXPECT_TRUE(is_zero_page(page));
}

}  // namespace
}  // namespace ferry::migration
