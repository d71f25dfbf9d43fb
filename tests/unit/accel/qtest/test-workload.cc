// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <future>
#include <map>
#include <thread>

#include "accel/qtest/workload.h"
#include "tests/support/test-env.h"

namespace ferry::qtest {
namespace {

using namespace std::chrono_literals;
using system::kPageSize;

constexpr uint64_t kRamPages = 64;
constexpr uint64_t kOffset = 16 * kPageSize;
constexpr uint64_t kPages = 32;

class WorkloadTest : public ::testing::Test {
 protected:
    WorkloadTest() {
        auto block = system::RamBlock::create_memfd("ram", kRamPages * kPageSize);
        block_ = *memory_.add_block(std::move(*block));
        EXPECT_TRUE(memory_.map(*block_, 0, 0, kRamPages * kPageSize));
    }

    static WorkloadState small() {
        WorkloadState state;
        state.working_set = kPages * kPageSize;
        state.offset = kOffset;
        state.seed = 42;
        return state;
    }
    std::unique_ptr<Workload> create(WorkloadState state) {
        auto workload = Workload::create("w", state, memory_, env_.env);
        EXPECT_TRUE(workload) << workload.error().message();
        return std::move(*workload);
    }
    // Moves the clock by a millisecond at a time until that many writes were made.
    void run_to(const Workload& workload, uint64_t position) {
        while (workload.state().position < position) {
            env_.clock.advance(1ms);
            ++ms_;
            std::this_thread::yield();
        }
    }
    static void pause(Workload& workload) {
        std::promise<void> parked;
        workload.pause([&parked] { parked.set_value(); });
        parked.get_future().wait();
    }
    // What memory must hold after the first `position` writes, by page.
    void expect_content(const WorkloadState& state) {
        std::map<uint64_t, uint64_t> last;
        for (uint64_t n = 1; n <= state.position; ++n) {
            last[page_of(state.order, state.seed, n, kPages)] = n;
        }
        const size_t size = state.fill == Fill::Page ? kPageSize : kRecordSize;
        for (uint64_t page = 0; page < kPages; ++page) {
            std::array<std::byte, kPageSize> wanted{};
            if (last.contains(page)) {
                fill_page(MutBytes(wanted).first(size), state.seed, last[page], page);
            }
            EXPECT_EQ(std::memcmp(wanted.data(), block_->host().data() + kOffset + page * kPageSize,
                                  kPageSize),
                      0)
                << page;
        }
    }

    test::TestEnv env_;
    system::GuestMemory memory_;
    system::RamBlock* block_ = nullptr;
    uint64_t ms_ = 0;
};

TEST_F(WorkloadTest, WorkingSetOutsideRamIsRefused) {
    WorkloadState state = small();
    state.working_set = kRamPages * kPageSize;
    EXPECT_EQ(Workload::create("w", state, memory_, env_.env).error().kind(),
              ErrorKind::InvalidArgument);
    state.offset = UINT64_MAX - kPageSize + 1;
    EXPECT_FALSE(Workload::create("w", state, memory_, env_.env));
}

TEST_F(WorkloadTest, OddSizesAndRatesAreRefused) {
    for (const auto& spoil : std::initializer_list<void (*)(WorkloadState&)>{
             [](WorkloadState& s) { s.working_set = 0; },
             [](WorkloadState& s) { s.working_set += 1; }, [](WorkloadState& s) { s.offset += 1; },
             [](WorkloadState& s) { s.pages_per_second = 0; },
             [](WorkloadState& s) { s.pages_per_second = Workload::kMaxPagesPerSecond + 1; },
             [](WorkloadState& s) { s.order = static_cast<Order>(2); },
             [](WorkloadState& s) { s.fill = static_cast<Fill>(2); }}) {
        WorkloadState state = small();
        spoil(state);
        EXPECT_FALSE(Workload::create("w", state, memory_, env_.env));
    }
}

TEST_F(WorkloadTest, WritesNothingBeforeItIsResumed) {
    const auto workload = create(small());
    env_.clock.advance(10s);
    EXPECT_EQ(workload->state().position, 0U);
    EXPECT_FALSE(block_->used());
}

TEST_F(WorkloadTest, RestoreIsRefusedWhileRunning) {
    const auto workload = create(small());
    workload->resume();
    EXPECT_EQ(workload->restore(small()).error().kind(), ErrorKind::InvalidState);
}

TEST_F(WorkloadTest, NeverFasterThanItsRate) {
    const auto workload = create(small());
    workload->resume();
    run_to(*workload, 200);
    EXPECT_LE(workload->state().position, ms_);  // 1000 per second
}

TEST_F(WorkloadTest, DelayIsNotFollowedByABurst) {
    const auto workload = create(small());
    workload->resume();
    run_to(*workload, 1);
    env_.clock.advance(1h);
    ms_ = 0;
    const uint64_t before = workload->state().position;
    run_to(*workload, before + 50);
    constexpr uint64_t kArrears = 100;  // a tenth of a second
    EXPECT_LE(workload->state().position, before + kArrears + ms_);
}

TEST_F(WorkloadTest, PausedMeansNoMoreWrites) {
    WorkloadState state = small();
    state.pages_per_second = 1'000'000;
    const auto workload = create(state);
    workload->resume();
    run_to(*workload, 100);
    pause(*workload);
    const uint64_t position = workload->state().position;
    env_.clock.advance(1s);
    EXPECT_EQ(workload->state().position, position);
    pause(*workload);  // again: reports at once
    workload->resume();
    run_to(*workload, position + 1);
}

TEST_F(WorkloadTest, PauseRightAfterResumeReports) {
    const auto workload = create(small());
    for (int i = 0; i < 200; ++i) {
        workload->resume();
        pause(*workload);
    }
}

TEST_F(WorkloadTest, ContentFollowsFromSeedAndPosition) {
    for (const Order order : {Order::Sequential, Order::Random}) {
        for (const Fill fill : {Fill::Record, Fill::Page}) {
            std::ranges::fill(block_->host(), std::byte{0});
            WorkloadState state = small();
            state.order = order;
            state.fill = fill;
            const auto workload = create(state);
            workload->resume();
            run_to(*workload, 3 * kPages / 2);
            pause(*workload);
            expect_content(workload->state());
        }
    }
}

TEST_F(WorkloadTest, WrittenPagesAreMarkedDirty) {
    const auto workload = create(small());
    workload->resume();
    run_to(*workload, 5);
    pause(*workload);
    util::Bitmap dirty(kRamPages);
    block_->dirty_log().collect_into(dirty);
    const uint64_t position = workload->state().position;
    EXPECT_EQ(dirty.count(), std::min(position, kPages));
    EXPECT_TRUE(dirty.test(kOffset / kPageSize));
    EXPECT_FALSE(dirty.test(kOffset / kPageSize - 1));
}

TEST_F(WorkloadTest, GoesOnFromARestoredPosition) {
    const auto workload = create(small());
    WorkloadState state = small();
    state.position = 1000;
    ASSERT_TRUE(workload->restore(state));
    workload->resume();
    run_to(*workload, 1001);
    pause(*workload);
    // It may have written more until it was parked: the last page tells.
    const uint64_t position = workload->state().position;
    EXPECT_GE(position, 1001U);
    std::array<std::byte, kPageSize> wanted{};
    const uint64_t page = page_of(state.order, state.seed, position, kPages);
    fill_page(wanted, state.seed, position, page);
    EXPECT_EQ(
        std::memcmp(wanted.data(), block_->host().data() + kOffset + page * kPageSize, kPageSize),
        0);
}

TEST_F(WorkloadTest, VcpusReportWhenAllAreParked) {
    const auto first = create(small());
    const auto second = create(small());
    WorkloadVcpus vcpus;
    unsigned reports = 0;
    vcpus.pause([&reports](Result<> result) { reports += result ? 1 : 0; });
    EXPECT_EQ(reports, 1U);
    vcpus.add(*first);
    vcpus.add(*second);
    vcpus.resume();
    run_to(*first, 1);
    std::promise<void> parked;
    vcpus.pause([&parked](Result<>) { parked.set_value(); });
    parked.get_future().wait();
    const auto positions = std::pair(first->state().position, second->state().position);
    env_.clock.advance(1s);
    EXPECT_EQ(positions, std::pair(first->state().position, second->state().position));
}

}  // namespace
}  // namespace ferry::qtest
