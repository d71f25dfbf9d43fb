// SPDX-License-Identifier: BSD-2-Clause
// How long does the VM stand still with 1, 2 and 4 equal devices that take 20 ms for every arc?
// Devices work in parallel, so 4 should hardly cost more than 1.
#include <algorithm>
#include <memory>
#include <vector>

#include "tests/bench/bench-support.h"
#include "tests/support/test-vm-device.h"

namespace ferry::bench {
namespace {

constexpr int kRuns = 3;

struct Side {
    Side(util::Clock& clock, system::RunState initial, unsigned devices) : vm(clock, initial) {
        hw::TestDeviceConfig config;
        config.state_bytes = 4 << 20;
        config.arc_latency = std::chrono::milliseconds(20);
        for (unsigned i = 0; i < devices; ++i) {
            all.push_back(std::make_unique<test::TestVmDevice>(vm, 3 + i, config));
        }
    }
    test::TestVm vm;
    std::vector<std::unique_ptr<test::TestVmDevice>> all;
};

// From stopping the vCPUs at the source to the destination's word that it runs.
double pause_ms(util::Clock& clock, unsigned devices) {
    Side src(clock, system::RunState::PreLaunch, devices);
    Side dst(clock, system::RunState::InMigrate, devices);
    must(src.vm.start().has_value(), "start");
    auto [out, in] = channel_pair();
    must(dst.vm.incoming(std::move(in)).has_value(), "incoming");
    must(src.vm.migrate(std::move(out)).has_value(), "migrate");
    must(src.vm.wait_over() && dst.vm.wait_over(), "migration");
    const auto counters = src.vm.migration->query().counters;
    must(counters && counters->downtime_ms, "completion");
    return static_cast<double>(*counters->downtime_ms);
}

double median_pause_ms(util::Clock& clock, unsigned devices) {
    std::vector<double> values;
    for (int i = 0; i < kRuns; ++i) values.push_back(pause_ms(clock, devices));
    std::ranges::sort(values);
    return values[values.size() / 2];
}

}  // namespace
}  // namespace ferry::bench

int main() {
    using namespace ferry::bench;
    ferry::util::SystemClock clock;
    const double one = median_pause_ms(clock, 1);
    const double two = median_pause_ms(clock, 2);
    const double four = median_pause_ms(clock, 4);
    std::printf(
        "{\"bench\": \"pause-devices\", \"arc_ms\": 20, \"pause_ms\": {\"1\": %.0f, \"2\": %.0f, "
        "\"4\": %.0f}, \"ratio_4_to_1\": %.2f}\n",
        one, two, four, four / one);
}
