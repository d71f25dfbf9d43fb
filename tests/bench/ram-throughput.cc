// SPDX-License-Identifier: BSD-2-Clause
// How fast does RAM go through one channel, compared with the same bytes pumped through a plain
// socket from the same memory into the same memory? Both in turn, kRuns pairs: the ratio is taken
// pair by pair, as what else the machine does meets both halves of a pair.
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "tests/bench/bench-support.h"
#include "tests/support/test-vm.h"

namespace ferry::bench {
namespace {

constexpr uint64_t kRamBytes = 512UL << 20;
constexpr int kRuns = 9;

struct Pair {
    explicit Pair(util::Clock& clock)
        : src(clock, system::RunState::PreLaunch, test::Guest::Idle, "bench", kRamBytes),
          dst(clock, system::RunState::InMigrate, test::Guest::Idle, "bench", kRamBytes) {
        // No zero pages: every byte must cross. The destination's memory is touched beforehand, so
        // that nobody pays for page faults.
        for (uint64_t at = 0; at < kRamBytes; at += 64) {
            src.ram->host()[at] = std::byte{0x5a};
            dst.ram->host()[at] = std::byte{0xa5};
        }
        dst.ram->mark_used();
        must(src.start().has_value(), "start");
    }
    test::TestVm src, dst;
};

double migrate_bytes_per_s(util::Clock& clock) {
    Pair vm(clock);
    auto [out, in] = channel_pair();
    must(vm.src
             .on_loop([&] {
                 migration::Parameters all_out = vm.src.migration->parameters();
                 all_out.max_bandwidth_bytes_per_s = 0;
                 return vm.src.migration->set_parameters(all_out);
             })
             .has_value(),
         "parameters");
    const auto begin = std::chrono::steady_clock::now();
    must(vm.dst.incoming(std::move(in)).has_value(), "incoming");
    must(vm.src.migrate(std::move(out)).has_value(), "migrate");
    must(vm.dst.loop.wait_for([&] { return !vm.dst.migration->in_progress(); }), "migration");
    const double seconds = seconds_since(begin);
    must(vm.src.wait_over(), "source");
    must(test::same_ram(vm.src, vm.dst), "comparison");
    return static_cast<double>(kRamBytes) / seconds;
}

double pump_bytes_per_s(util::Clock& clock) {
    Pair vm(clock);
    constexpr size_t kChunk = 1 << 20;
    auto [out, in] = socket_pair();
    const auto begin = std::chrono::steady_clock::now();
    std::jthread sender([&, fd = out.raw()] {
        ConstBytes left = vm.src.ram->host();
        while (!left.empty()) {
            const ssize_t n = ::write(fd, left.data(), std::min(kChunk, left.size()));
            must(n > 0, "write");
            left = left.subspan(static_cast<size_t>(n));
        }
    });
    MutBytes left = vm.dst.ram->host();
    while (!left.empty()) {
        const ssize_t n = ::read(in.raw(), left.data(), std::min(kChunk, left.size()));
        must(n > 0, "read");
        left = left.subspan(static_cast<size_t>(n));
    }
    return static_cast<double>(kRamBytes) / seconds_since(begin);
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

}  // namespace
}  // namespace ferry::bench

int main() {
    using namespace ferry::bench;
    ferry::util::SystemClock clock;
    std::vector<double> pump;
    std::vector<double> ram;
    std::vector<double> ratio;
    for (int i = 0; i < kRuns; ++i) {
        pump.push_back(pump_bytes_per_s(clock));
        ram.push_back(migrate_bytes_per_s(clock));
        ratio.push_back(ram.back() / pump.back());
    }
    constexpr double kMiB = 1 << 20;
    std::printf(
        "{\"bench\": \"ram-throughput\", \"ram_mib_per_s\": %.0f, \"pump_mib_per_s\": %.0f, "
        "\"ratio\": %.2f, \"ratio_min\": %.2f, \"ratio_max\": %.2f}\n",
        median(ram) / kMiB, median(pump) / kMiB, median(ratio), std::ranges::min(ratio),
        std::ranges::max(ratio));
}
