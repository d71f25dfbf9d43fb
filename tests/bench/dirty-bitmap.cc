// SPDX-License-Identifier: BSD-2-Clause
// How long does it take to merge what a tracker says of 1 TiB of guest memory, and to find the
// pages in it, with so many of them dirty? Both lie in the pause. No page is touched: of the memory
// there is only the address.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "hw/vfio/iommu-dirty-log.h"
#include "migration/ram-dirty.h"
#include "system/memory.h"

namespace ferry::bench {
namespace {

constexpr uint64_t kGuestBytes = uint64_t{1} << 40;
constexpr uint64_t kPages = kGuestBytes / system::kPageSize;
constexpr uint64_t kTakeAtMost = 256;  // pages that leave together

// In tenths of a percent, scattered: the worst case but for 100 %.
util::Bitmap dirty_pages(uint64_t pages, int64_t permille, uint32_t seed) {
    util::Bitmap bitmap(pages);
    if (permille == 1000) {
        bitmap.set_all();
    } else {
        std::mt19937_64 random(seed);
        for (uint64_t i = 0; i < pages * static_cast<uint64_t>(permille) / 1000; ++i) {
            bitmap.set(random() % pages);
        }
    }
    return bitmap;
}

// Answers as a device's log does: piece by piece, with bitmaps that are there already.
class Tracker final : public system::DirtyTracker {
 public:
    explicit Tracker(int64_t permille) {
        constexpr uint64_t kPiecePages = vfio::kMaxDirtyQueryBytes / system::kPageSize;
        for (uint64_t at = 0; at < kPages; at += kPiecePages) {
            pieces_.push_back(dirty_pages(kPiecePages, permille, static_cast<uint32_t>(at >> 20)));
        }
    }
    std::string_view name() const override { return "bench"; }
    Result<> dirty_log_start() override { return {}; }
    void dirty_log_stop() override {}
    void dirty_log_sync(system::SyncPhase, system::DirtySink& sink) override {
        for (size_t i = 0; i < pieces_.size(); ++i) {
            sink.mark_dirty_pages(i * vfio::kMaxDirtyQueryBytes, system::kPageSize, pieces_[i]);
        }
    }

 private:
    std::vector<util::Bitmap> pieces_;
};

struct Guest {
    explicit Guest(int64_t permille) : tracker(permille) {
        void* at = ::mmap(nullptr, kGuestBytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) std::abort();
        system::RamBlock& block = **memory.add_block(
            system::RamBlock::wrap("ram", MutBytes(static_cast<std::byte*>(at), kGuestBytes)));
        if (!memory.map(block, 0, 0, kGuestBytes)) std::abort();
        registration = memory.add_tracker(tracker);
        map.emplace(memory);
        take_all();
    }
    ~Guest() {
        registration.reset();
        ::munmap(memory.blocks()[0]->host().data(), kGuestBytes);
    }
    uint64_t take_all() {
        uint64_t pages = 0;
        for (auto run = map->take(kTakeAtMost); run.count != 0; run = map->take(kTakeAtMost)) {
            pages += run.count;
        }
        return pages;
    }

    system::GuestMemory memory;
    Tracker tracker;
    util::Registration registration;
    std::optional<migration::RamDirtyMap> map;
};

void merge(benchmark::State& state) {
    Guest guest(state.range(0));
    uint64_t pages = 0;
    for (auto _ : state) {
        pages = guest.map->sync(system::SyncPhase::Final);
        state.PauseTiming();
        guest.take_all();
        state.ResumeTiming();
    }
    state.counters["pages"] = static_cast<double>(pages);
}

void scan(benchmark::State& state) {
    Guest guest(state.range(0));
    uint64_t pages = 0;
    for (auto _ : state) {
        state.PauseTiming();
        (void)guest.map->sync(system::SyncPhase::Final);
        state.ResumeTiming();
        pages = guest.take_all();  // none: it is known, and nothing is looked at
    }
    state.counters["pages"] = static_cast<double>(pages);
}

constexpr int64_t kPermille[] = {0, 1, 10, 50, 1000};
// So often and no more: what is not timed takes most of the time.
constexpr int kIterations = 20;
BENCHMARK(merge)
    ->ArgsProduct({{std::begin(kPermille), std::end(kPermille)}})
    ->Iterations(kIterations);
BENCHMARK(scan)
    ->ArgsProduct({{std::begin(kPermille), std::end(kPermille)}})
    ->Iterations(kIterations);

// One JSON line per point.
class Lines final : public benchmark::BenchmarkReporter {
 public:
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            const double ms = run.GetAdjustedRealTime() / 1e6;  // from ns
            const double pages = run.counters.at("pages");
            const std::string name = run.benchmark_name();
            const size_t slash = name.find('/');
            std::printf(
                "{\"bench\": \"dirty-bitmap\", \"step\": \"%s\", \"guest_tib\": 1, "
                "\"dirty_percent\": %g, \"dirty_pages\": %.0f, \"ms\": %.2f, "
                "\"ns_per_dirty_page\": %.2f}\n",
                name.substr(0, slash).c_str(), std::stod(name.substr(slash + 1)) / 10, pages, ms,
                pages == 0 ? 0 : ms * 1e6 / pages);
        }
    }
};

}  // namespace
}  // namespace ferry::bench

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    ferry::bench::Lines lines;
    benchmark::RunSpecifiedBenchmarks(&lines);
}
