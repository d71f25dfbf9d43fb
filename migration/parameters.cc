// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>
#include <array>
#include <limits>

#include "migration/capabilities.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr uint64_t kAnySize = std::numeric_limits<uint64_t>::max();

constexpr std::array kTable = {
    ParameterInfo{"max-bandwidth", &Parameters::max_bandwidth_bytes_per_s, 0, kAnySize,
                  " bytes/second"},
    ParameterInfo{"avail-switchover-bandwidth", &Parameters::avail_switchover_bandwidth_bytes_per_s,
                  0, kAnySize, " bytes/second"},
    ParameterInfo{"downtime-limit", &Parameters::downtime_limit_ms, 0, 2'000'000, " ms"},
    ParameterInfo{"throttle-trigger-threshold", &Parameters::throttle_trigger_threshold, 1, 100,
                  ""},
    ParameterInfo{"cpu-throttle-initial", &Parameters::cpu_throttle_initial, 1, 99, ""},
    ParameterInfo{"cpu-throttle-increment", &Parameters::cpu_throttle_increment, 1, 99, ""},
    ParameterInfo{"cpu-throttle-tailslow", &Parameters::cpu_throttle_tailslow, 0, 1, ""},
    // Its bounds depend on another one: check_parameters().
    ParameterInfo{"max-cpu-throttle", &Parameters::max_cpu_throttle, 0, 255, ""},
    ParameterInfo{"multifd-channels", &Parameters::multifd_channels, 1, 255, ""},
    ParameterInfo{"multifd-compression", &Parameters::multifd_compression, 0, 2, ""},
    ParameterInfo{"multifd-zlib-level", &Parameters::multifd_zlib_level, 0, 9, ""},
    ParameterInfo{"multifd-zstd-level", &Parameters::multifd_zstd_level, 0, 20, ""},
    ParameterInfo{"zero-page-detection", &Parameters::zero_page_detection, 0, 2, ""},
    ParameterInfo{"x-peer-timeout", &Parameters::x_peer_timeout_ms, 1'000, 86'400'000, " ms"},
};

// Range errors spell names with underscores; drivers know them that way.
std::string with_underscores(std::string_view name) {
    std::string out(name);
    std::ranges::replace(out, '-', '_');
    return out;
}

}  // namespace

std::string_view to_string(MultifdCompression method) {
    switch (method) {
        case MultifdCompression::None: return "none";
        case MultifdCompression::Zlib: return "zlib";
        case MultifdCompression::Zstd: return "zstd";
    }
    std::unreachable();
}

std::span<const ParameterInfo> parameter_table() {
    return kTable;
}

Result<> set_parameter(Parameters& parameters, std::string_view name, uint64_t value) {
    const auto found = std::ranges::find(kTable, name, &ParameterInfo::name);
    if (found == kTable.end()) {
        return make_error(ErrorKind::InvalidArgument, "Parameter '{}' is unexpected", name);
    }
    if (value < found->minimum || value > found->maximum) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter '{}' expects a value between {} and {}",
                          with_underscores(name), found->minimum, found->maximum);
    }
    parameters.*(found->value) = value;
    return {};
}

Result<> check_parameters(const Parameters& wanted) {
    constexpr uint64_t kMaxThrottle = 99;  // percent
    if (wanted.max_cpu_throttle < wanted.cpu_throttle_initial ||
        wanted.max_cpu_throttle > kMaxThrottle) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter 'max_cpu_throttle' expects an integer in the range of "
                          "cpu_throttle_initial to 99");
    }
    return {};
}

}  // namespace ferry::migration
