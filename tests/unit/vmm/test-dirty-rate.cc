// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "system/vmm/dirty-rate-probe.h"
#include "tests/support/fake-clock.h"
#include "util/try.h"

namespace ferry::vmm {
namespace {

constexpr uint64_t kRateMiB = uint64_t{1} << 20;

// CPUs that write what a test says.
class ScriptedCpus final : public system::DirtyTracker {
 public:
    std::string_view name() const override { return "cpus"; }
    Result<> dirty_log_start() override {
        ++starts;
        if (fails) return make_error(ErrorKind::Syscall, "no log");
        return {};
    }
    void dirty_log_stop() override { ++stops; }
    void dirty_log_sync(system::SyncPhase, system::DirtySink& sink) override {
        for (const system::Gpa page : std::exchange(written, {})) {
            sink.mark_dirty(page, system::kPageSize);
        }
        if (bits.size() > 0) sink.mark_dirty_pages(0, system::kPageSize, std::exchange(bits, {}));
    }

    bool fails = false;
    int starts = 0;
    int stops = 0;
    std::vector<system::Gpa> written;
    util::Bitmap bits;
};

class LogProbeTest : public ::testing::Test {
 protected:
    LogProbeTest() {
        block_ = *memory_.add_block(std::move(*system::RamBlock::create_memfd("ram", kRateMiB)));
        EXPECT_TRUE(memory_.map(*block_, 0, 0, kRateMiB));
    }
    std::unique_ptr<DirtyRateProbe> probe() {
        auto made = make_log_probe(clock_, memory_, &cpus_);
        EXPECT_TRUE(made);
        return std::move(*made);
    }

    test::FakeClock clock_;
    system::GuestMemory memory_;
    system::RamBlock* block_ = nullptr;
    ScriptedCpus cpus_;
};

TEST_F(LogProbeTest, CountsPagesThatAnybodyWroteSinceItBegan) {
    cpus_.written = {0, 4096};
    block_->mark_dirty(8192, 1);
    const auto measuring = probe();
    ASSERT_TRUE(measuring->begin());
    clock_.advance(std::chrono::seconds(2));
    cpus_.written = {4096, 12288};
    cpus_.bits = util::Bitmap(8);
    cpus_.bits.set_range(3, 2);           // one of which is known already
    block_->mark_dirty(4096, 1);          // the same
    block_->mark_dirty(65536 + 4095, 2);  // two
    const auto found = measuring->finish();
    EXPECT_EQ(found.bytes, 5 * system::kPageSize);
    EXPECT_EQ(found.took, std::chrono::seconds(2));
    EXPECT_EQ(cpus_.starts, 1);
    EXPECT_EQ(cpus_.stops, 1);
}

TEST_F(LogProbeTest, WhatLiesOutsideRamDoesNotCount) {
    const auto measuring = probe();
    ASSERT_TRUE(measuring->begin());
    cpus_.written = {kRateMiB - 4096, kRateMiB, uint64_t{1} << 40};
    EXPECT_EQ(measuring->finish().bytes, system::kPageSize);
}

TEST_F(LogProbeTest, MigrationTakesTheLogAndTheResultIsWhatWasFoundUpToThen) {
    const auto measuring = probe();
    ASSERT_TRUE(measuring->begin());
    cpus_.written = {0};
    clock_.advance(std::chrono::seconds(1));
    {
        const auto migration = memory_.dirty_log_use().take();
        EXPECT_EQ(cpus_.stops, 1);
        EXPECT_FALSE(make_log_probe(clock_, memory_, &cpus_));
        cpus_.written = {4096, 8192};
        clock_.advance(std::chrono::seconds(1));
    }
    const auto found = measuring->finish();
    EXPECT_EQ(found.bytes, system::kPageSize);
    EXPECT_EQ(found.took, std::chrono::seconds(1));
    EXPECT_EQ(cpus_.stops, 1);
}

TEST_F(LogProbeTest, MigrationThatBeginsFirstEndsIt) {
    const auto measuring = probe();
    const auto migration = memory_.dirty_log_use().take();
    EXPECT_FALSE(measuring->begin());
    EXPECT_EQ(cpus_.starts, 0);
}

TEST_F(LogProbeTest, LogThatDoesNotStartIsNamedAndStopped) {
    cpus_.fails = true;
    const auto measuring = probe();
    const auto begun = measuring->begin();
    ASSERT_FALSE(begun);
    EXPECT_NE(begun.error().message().find("cpus"), std::string::npos);
    EXPECT_EQ(cpus_.stops, 1);
}

TEST_F(LogProbeTest, ProbeThatIsForgottenGivesTheLogBack) {
    {
        const auto measuring = probe();
        ASSERT_TRUE(measuring->begin());
    }
    EXPECT_EQ(cpus_.stops, 1);
    EXPECT_TRUE(make_log_probe(clock_, memory_, nullptr));
}

TEST_F(LogProbeTest, SamplingSeesTheShareThatChanged) {
    const auto sampling = make_sampling_probe(clock_, memory_, uint64_t{1} << 30);
    ASSERT_TRUE(sampling->begin());
    EXPECT_EQ(sampling->finish().bytes, 0U);
    for (uint64_t at = 0; at < kRateMiB; at += system::kPageSize) {
        block_->host()[at] = std::byte{1};
    }
    EXPECT_EQ(sampling->finish().bytes, kRateMiB);
}

}  // namespace
}  // namespace ferry::vmm
