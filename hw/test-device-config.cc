// SPDX-License-Identifier: BSD-2-Clause
// The test device's properties: text to TestDeviceConfig.
#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "hw/test-device.h"
#include "system/memory.h"
#include "util/try.h"

namespace ferry::hw {

namespace {

using Config = TestDeviceConfig;

Error bad_value(std::string_view text, std::string_view wanted) {
    return make_error(ErrorKind::InvalidArgument, "'{}' is not {}", text, wanted);
}

struct Unit {
    std::string_view suffix;
    uint64_t factor;
};

// A whole number with one of the units; "" among them makes the unit optional.
Result<uint64_t> parse_number(std::string_view text, std::span<const Unit> units,
                              std::string_view wanted) {
    uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status != std::errc()) return bad_value(text, wanted);
    const std::string_view suffix = text.substr(static_cast<size_t>(end - text.data()));
    for (const Unit& unit : units) {
        if (unit.suffix != suffix) continue;
        if (number > std::numeric_limits<int64_t>::max() / unit.factor) break;
        return number * unit.factor;
    }
    return bad_value(text, wanted);
}

constexpr Unit kCount[] = {{"", 1}};
constexpr Unit kSizes[] = {{"", 1},        {"k", 1 << 10}, {"K", 1 << 10}, {"m", 1 << 20},
                           {"M", 1 << 20}, {"g", 1 << 30}, {"G", 1 << 30}};
constexpr Unit kTimes[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};

Result<uint64_t> parse_size(std::string_view text, uint64_t limit) {
    MIG_TRY(const uint64_t bytes, parse_number(text, kSizes, "a size such as 64M"));
    if (bytes > limit) {
        return make_error(ErrorKind::LimitExceeded, "'{}' is more than {} bytes", text, limit);
    }
    return bytes;
}

Result<bool> parse_switch(std::string_view text) {
    if (text == "on") return true;
    if (text == "off") return false;
    return bad_value(text, "on or off");
}

Result<util::Nanoseconds> parse_time(std::string_view text) {
    MIG_TRY(const uint64_t ns, parse_number(text, kTimes, "a time such as 20ms"));
    return util::Nanoseconds(static_cast<int64_t>(ns));
}

Result<vfio::MigState> parse_state(std::string_view name) {
    if (const auto state = vfio::mig_state_from_name(name)) return *state;
    return bad_value(name, "a migration state");
}

// "20ms" or "stop->stop-copy:20ms".
Result<> parse_arc_latency(std::string_view text, Config& config) {
    const size_t colon = text.find(':');
    if (colon == text.npos) {
        MIG_TRY(config.arc_latency, parse_time(text));
        return {};
    }
    const std::string_view arc = text.substr(0, colon);
    const size_t arrow = arc.find("->");
    if (arrow == arc.npos) return bad_value(text, "of the form FROM->TO:TIME");
    MIG_TRY(const auto from, parse_state(arc.substr(0, arrow)));
    MIG_TRY(const auto to, parse_state(arc.substr(arrow + 2)));
    MIG_TRY(const auto latency, parse_time(text.substr(colon + 1)));
    config.arc_latencies.push_back({from, to, latency});
    return {};
}

Result<> parse_arc_latencies(std::string_view text, Config& config) {
    for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(';', begin), text.size());
        MIG_CHECK(parse_arc_latency(text.substr(begin, end - begin), config));
        begin = end + 1;
    }
    return {};
}

Result<> set_state_size(std::string_view text, Config& config) {
    MIG_TRY(config.state_bytes, parse_size(text, Config::kMaxStateBytes));
    if (config.state_bytes == 0 || config.state_bytes % system::kPageSize != 0) {
        return bad_value(text, "a positive multiple of 4096");
    }
    return {};
}

Result<> set_vectors(std::string_view text, Config& config) {
    MIG_TRY(const uint64_t count, parse_number(text, kCount, "a number"));
    if (count == 0 || count > Config::kMaxVectors) return bad_value(text, "between 1 and 64");
    config.vectors = static_cast<uint32_t>(count);
    return {};
}

Result<> set_vendor_data(std::string_view text, Config& config) {
    if (text.size() > Config::kMaxVendorData) return bad_value(text, "12 bytes or fewer");
    config.vendor_data = text;
    return {};
}

Result<> set_dirty_tracking(std::string_view text, Config& config) {
    using enum Config::DirtyTracking;
    if (text == "on")
        config.dirty_tracking = On;
    else if (text == "off")
        config.dirty_tracking = Off;
    else if (text == "fail-report")
        config.dirty_tracking = FailReport;
    else if (text == "lose-page")
        config.dirty_tracking = LosePage;
    else
        return bad_value(text, "on, off, fail-report or lose-page");
    return {};
}

struct Property {
    Config::PropertyHelp help;
    Result<> (*set)(std::string_view text, Config& config);
};

constexpr Property kProperties[] = {
    {{"x-state-size", "SIZE", "bytes of device state, a multiple of 4096; 1M"}, set_state_size},
    {{"x-state-file", "PATH", "keep the state in this file, which is created or emptied"},
     [](std::string_view text, Config& config) -> Result<> {
         config.state_file = text;
         return {};
     }},
    {{"x-dirty-rate", "SIZE", "bytes of state the running device changes per second; 0"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(config.dirty_bytes_per_s, parse_size(text, Config::kMaxBytesPerS));
         return {};
     }},
    {{"x-dma-rate", "PAGES", "pages of guest memory it writes per second once enabled; 0"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(config.dma_pages_per_s,
                 parse_size(text, Config::kMaxBytesPerS / system::kPageSize));
         return {};
     }},
    {{"x-migratable", "on|off", "off: the device does not migrate; on"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(config.caps.stop_copy, parse_switch(text));
         return {};
     }},
    {{"x-p2p", "on|off", "the P2P states exist; on"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(config.caps.p2p, parse_switch(text));
         return {};
     }},
    {{"x-pre-copy", "on|off", "the pre-copy states exist; on"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(config.caps.pre_copy, parse_switch(text));
         return {};
     }},
    {{"x-arc-latency", "TIME|FROM->TO:TIME[;...]", "how long arcs take: all, or the named one; 0"},
     parse_arc_latencies},
    {{"x-dirty-tracking", "on|off|fail-report|lose-page", "the device logs its DMA; on"},
     set_dirty_tracking},
    {{"x-enomsg", "on|off", "pre-copy without data: ENOMSG, or 0 bytes; on"},
     [](std::string_view text, Config& config) -> Result<> {
         using enum Config::NothingForNow;
         MIG_TRY(const bool on, parse_switch(text));
         config.nothing_for_now = on ? Enomsg : Zero;
         return {};
     }},
    {{"x-vectors", "COUNT", "MSI-X vectors, 1 to 64; 4"}, set_vectors},
    {{"x-intx", "on|off", "it has an interrupt pin as well, INTA; off"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(const bool on, parse_switch(text));
         config.pin = on ? Config::Pin::IntA : Config::Pin::None;
         return {};
     }},
    {{"x-vendor-data", "TEXT", "content of the vendor capability, up to 12 bytes; ferry-test"},
     set_vendor_data},
    {{"x-pcie", "on|off", "express capability, 4096 bytes of configuration space; off"},
     [](std::string_view text, Config& config) -> Result<> {
         MIG_TRY(const bool on, parse_switch(text));
         config.bus = on ? Config::Bus::Pcie : Config::Bus::Pci;
         return {};
     }},
    {{"x-fault", "SCRIPT", "calls that fail, come back short or are held"},
     [](std::string_view text, Config& config) -> Result<> {
         config.faults = text;
         return {};
     }},
};

constexpr auto kHelp = [] {
    std::array<Config::PropertyHelp, std::size(kProperties)> help;
    for (size_t i = 0; i < help.size(); ++i) help[i] = kProperties[i].help;
    return help;
}();

}  // namespace

Result<TestDeviceConfig> TestDeviceConfig::parse(
    std::span<const std::pair<std::string, std::string>> properties) {
    TestDeviceConfig config;
    for (const auto& [name, value] : properties) {
        const auto at = std::ranges::find(kProperties, name,
                                          [](const Property& known) { return known.help.name; });
        if (at == std::end(kProperties)) {
            return make_error(ErrorKind::InvalidArgument, "property '{}' does not exist", name);
        }
        MIG_CHECK(at->set(value, config), "property '{}'", name);
    }
    if (!config.caps.stop_copy) config.caps = {};
    return config;
}

std::span<const TestDeviceConfig::PropertyHelp> TestDeviceConfig::property_help() {
    return kHelp;
}

}  // namespace ferry::hw
