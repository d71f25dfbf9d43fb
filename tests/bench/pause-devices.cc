// SPDX-License-Identifier: BSD-2-Clause
// How long does the VM stand still with 1, 2, 4 and 8 equal devices that take 20 ms for every arc
// and have 16 MiB of state each? Devices work in parallel, so 8 should hardly cost more than 1: on
// the main channel alone as over page channels. What moving the bytes takes is stated and taken
// off, as two processors move eight times as many.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/bench-support.h"
#include "tests/support/test-vm-device.h"

namespace ferry::bench {
namespace {

constexpr int kRuns = 3;
constexpr uint64_t kStateBytes = 16U << 20;

struct Side {
    Side(util::Clock& clock, system::RunState initial, unsigned devices, size_t channels,
         util::Nanoseconds arc)
        : vm(clock, initial) {
        hw::TestDeviceConfig config;
        config.caps.pre_copy = false;  // all of it goes in the pause
        config.state_bytes = kStateBytes;
        config.arc_latency = arc;
        for (unsigned i = 0; i < devices; ++i) {
            all.push_back(std::make_unique<test::TestVmDevice>(vm, 3 + i, config));
        }
        must(vm.on_loop([&] {
                   migration::Parameters changed = vm.migration->parameters();
                   changed.max_bandwidth_bytes_per_s = 0;
                   changed.downtime_limit_ms = 100'000;
                   changed.multifd_channels = std::max<size_t>(channels, 1);
                   return vm.migration->set_parameters(changed);
               }).has_value(),
             "parameters");
        must(vm.set_capability(migration::Capability::ReturnPath).has_value(), "return-path");
        if (channels != 0) {
            must(vm.set_capability(migration::Capability::Multifd).has_value(), "multifd");
        }
    }
    test::TestVm vm;
    std::vector<std::unique_ptr<test::TestVmDevice>> all;
};

// From stopping the vCPUs at the source to the destination's word that it runs.
double pause_ms(util::Clock& clock, unsigned devices, size_t channels, util::Nanoseconds arc) {
    Side src(clock, system::RunState::PreLaunch, devices, channels, arc);
    Side dst(clock, system::RunState::InMigrate, devices, channels, arc);
    must(src.vm.start().has_value(), "start");
    auto [out, in] = channel_pair();
    std::vector<std::unique_ptr<migration::MigrationChannel>> out_pages;
    std::vector<std::unique_ptr<migration::MigrationChannel>> in_pages;
    for (size_t i = 0; i < channels; ++i) {
        auto [a, b] = channel_pair();
        out_pages.push_back(std::move(a));
        in_pages.push_back(std::move(b));
    }
    must(dst.vm
             .on_loop([&] {
                 return dst.vm.migration->migrate_incoming(
                     std::move(in), migration::ExitOnError::No, std::move(in_pages));
             })
             .has_value(),
         "incoming");
    must(src.vm
             .on_loop(
                 [&] { return src.vm.migration->migrate(std::move(out), std::move(out_pages)); })
             .has_value(),
         "migrate");
    must(src.vm.wait_over() && dst.vm.wait_over(), "migration");
    const auto counters = src.vm.migration->query().counters;
    must(counters && counters->downtime_ms, "completion");
    return static_cast<double>(*counters->downtime_ms);
}

double median_pause_ms(util::Clock& clock, unsigned devices, size_t channels,
                       util::Nanoseconds arc) {
    std::vector<double> values;
    for (int i = 0; i < kRuns; ++i) values.push_back(pause_ms(clock, devices, channels, arc));
    std::ranges::sort(values);
    return values[values.size() / 2];
}

void measure(util::Clock& clock, size_t channels) {
    const util::Nanoseconds arc = std::chrono::milliseconds(20);
    std::string pauses;
    std::string moving;
    double one = 0;
    double last = 0;
    for (const unsigned devices : {1U, 2U, 4U, 8U}) {
        const double pause = median_pause_ms(clock, devices, channels, arc);
        const double transfer = median_pause_ms(clock, devices, channels, {});
        last = pause - transfer;
        if (devices == 1) one = last;
        const auto entry = [&](double value) {
            return "\"" + std::to_string(devices) +
                   "\": " + std::to_string(static_cast<int>(value)) + (devices == 8 ? "" : ", ");
        };
        pauses += entry(pause);
        moving += entry(transfer);
    }
    std::printf(
        "{\"bench\": \"pause-devices\", \"page_channels\": %zu, \"arc_ms\": 20, \"state_mib\": 16, "
        "\"pause_ms\": {%s}, \"without_arcs_ms\": {%s}, \"ratio_8_to_1\": %.2f}\n",
        channels, pauses.c_str(), moving.c_str(), last / one);
}

}  // namespace
}  // namespace ferry::bench

int main() {
    ferry::util::SystemClock clock;
    for (const size_t channels : {0, 1, 4}) ferry::bench::measure(clock, channels);
}
