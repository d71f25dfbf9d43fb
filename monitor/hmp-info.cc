// SPDX-License-Identifier: BSD-2-Clause
// What HMP shows, made of what QMP answers.
#include <array>
#include <charconv>

#include "monitor/hmp.h"
#include "monitor/settings.h"
#include "util/size-text.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

constexpr uint64_t kKibi = 1024;

void line(std::string& out, std::string_view name, const std::string& value) {
    out += fmt::format("{}: {}\n", name, value);
}

// A member as one line, divided for the unit; left out when absent, or zero and not wanted then.
struct Row {
    const char* member;
    std::string_view label;
    uint64_t divisor;
    std::string_view unit;
    enum class Zero : uint8_t { Shown, LeftOut } zero = Zero::Shown;
};

void rows(std::string& out, const Json& object, std::span<const Row> list) {
    for (const Row& row : list) {
        const auto found = object.find(row.member);
        if (found == object.end()) continue;
        const uint64_t value = to_uint64(*found);
        if (value == 0 && row.zero == Row::Zero::LeftOut) continue;
        line(out, row.label, fmt::format("{}{}", value / row.divisor, row.unit));
    }
}

constexpr std::array kTimes = {
    Row{"expected-downtime", "expected downtime", 1, " ms"},
    Row{"downtime", "downtime", 1, " ms"},
    Row{"setup-time", "setup", 1, " ms"},
};
constexpr std::array kRamTransferred = {Row{"transferred", "transferred ram", kKibi, " kbytes"}};
constexpr std::array kRam = {
    Row{"remaining", "remaining ram", kKibi, " kbytes"},
    Row{"total", "total ram", kKibi, " kbytes"},
    Row{"duplicate", "duplicate", 1, " pages"},
    Row{"normal", "normal", 1, " pages"},
    Row{"normal-bytes", "normal bytes", kKibi, " kbytes"},
    Row{"dirty-sync-count", "dirty sync count", 1, ""},
    Row{"page-size", "page size", kKibi, " kbytes"},
    Row{"multifd-bytes", "multifd bytes", kKibi, " kbytes"},
    Row{"pages-per-second", "pages-per-second", 1, ""},
    Row{"dirty-pages-rate", "dirty pages rate", 1, " pages", Row::Zero::LeftOut},
    Row{"postcopy-requests", "postcopy request count", 1, "", Row::Zero::LeftOut},
    Row{"precopy-bytes", "precopy ram", kKibi, " kbytes", Row::Zero::LeftOut},
    Row{"downtime-bytes", "downtime ram", kKibi, " kbytes", Row::Zero::LeftOut},
    Row{"postcopy-bytes", "postcopy ram", kKibi, " kbytes", Row::Zero::LeftOut},
};

constexpr std::array kThrottle = {Row{"cpu-throttle-percentage", "cpu throttle percentage", 1, ""}};

// Settings that older hypervisors let people change; scripts read past them.
std::string globals_text(const MigrationGlobals& globals) {
    const auto on_off = [](migration::StreamOptions::Sent sent) {
        return sent == migration::StreamOptions::Sent::Yes ? "on" : "off";
    };
    return fmt::format(
        "globals:\n"
        "store-global-state: {}\n"
        "only-migratable: {}\n"
        "send-configuration: on\n"
        "send-section-footer: on\n"
        "send-switchover-start: {}\n"
        "clear-bitmap-shift: 18\n",
        on_off(globals.stream.global_state), globals.only_migratable ? "on" : "off",
        on_off(globals.stream.switchover_start));
}

std::string socket_address_text(const Json& address) {
    if (address["type"] == "unix") {
        return fmt::format("unix:{}", address["path"].get<std::string>());
    }
    return fmt::format("tcp:{}:{}", address["host"].get<std::string>(),
                       address["port"].get<std::string>());
}

void vfio_lines(std::string& out, const Json& vfio) {
    line(out, "vfio device transferred",
         fmt::format("{} kbytes", to_uint64(vfio["transferred"]) / kKibi));
    if (!vfio.contains("devices")) return;
    for (const Json& device : vfio["devices"]) {
        line(out, fmt::format("vfio device '{}'", device["id"].get<std::string>()),
             fmt::format("{}, sent {} kbytes, loaded {} kbytes", device["state"].get<std::string>(),
                         to_uint64(device["sent"]) / kKibi, to_uint64(device["loaded"]) / kKibi));
    }
}

Result<Json> switch_from_text(const std::string& text) {
    if (text == "on" || text == "yes" || text == "true" || text == "y") return Json(true);
    if (text == "off" || text == "no" || text == "false" || text == "n") return Json(false);
    return make_error(ErrorKind::InvalidArgument, "Invalid parameter type, expected: boolean");
}

Result<Json> number_from_text(const std::string& text) {
    uint64_t number = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failed != std::errc() || end != text.data() + text.size()) {
        return make_error(ErrorKind::InvalidArgument, "Invalid parameter type, expected: integer");
    }
    return Json(number);
}

}  // namespace

std::string status_text(const Json& status) {
    if (status["running"] == true) return "VM status: running\n";
    const auto state = status["status"].get<std::string>();
    if (state == "paused") return "VM status: paused\n";
    return fmt::format("VM status: paused ({})\n", state);
}

std::string version_text(const Json& version) {
    const Json& level = version["qemu"];
    return fmt::format("{}.{}.{} ({})\n", level["major"].get<int>(), level["minor"].get<int>(),
                       level["micro"].get<int>(), version["package"].get<std::string>());
}

std::string migration_text(const Json& info, const MigrationGlobals& globals) {
    std::string out;
    if (info.contains("blocked-reasons")) {
        out += "Outgoing migration blocked:\n";
        for (const Json& reason : info["blocked-reasons"]) {
            out += fmt::format("  {}\n", reason.get<std::string>());
        }
    }
    out += globals_text(globals);
    if (!info.contains("status")) return out;

    auto status = info["status"].get<std::string>();
    if (status == "failed" && info.contains("error-desc")) {
        status += fmt::format(" ({})", info["error-desc"].get<std::string>());
    }
    line(out, "Migration status", status);
    line(out, "total time",
         fmt::format("{} ms", info.contains("total-time") ? to_uint64(info["total-time"]) : 0));
    rows(out, info, kTimes);
    if (info.contains("ram")) {
        const Json& ram = info["ram"];
        rows(out, ram, kRamTransferred);
        line(out, "throughput", fmt::format("{:.2f} mbps", ram["mbps"].get<double>()));
        rows(out, ram, kRam);
    }
    rows(out, info, kThrottle);
    if (info.contains("socket-address")) {
        out += "socket address: [\n";
        for (const Json& address : info["socket-address"]) {
            out += fmt::format("\t{}\n", socket_address_text(address));
        }
        out += "]\n";
    }
    if (info.contains("vfio")) vfio_lines(out, info["vfio"]);
    if (info.contains("x-pending-calls")) {
        for (const Json& call : info["x-pending-calls"]) {
            line(out, fmt::format("waiting for '{}'", call["who"].get<std::string>()),
                 fmt::format("{}, {} ms", call["call"].get<std::string>(),
                             to_uint64(call["pending-ms"])));
        }
    }
    return out;
}

std::string capabilities_text(const Json& capabilities) {
    std::string out;
    for (const Json& entry : capabilities) {
        line(out, entry["capability"].get<std::string>(), entry["state"] == true ? "on" : "off");
    }
    return out;
}

std::string parameters_text(const Json& parameters) {
    std::string out;
    for (const ParameterShape& shape : parameter_shapes()) {
        const auto found = parameters.find(std::string(shape.name));
        if (found == parameters.end() || shape.form == HmpForm::Hidden) continue;
        std::string value;
        if (found->is_boolean()) {
            value = *found == true ? "on" : "off";
        } else if (found->is_string()) {
            const std::string& text = found->get_ref<const std::string&>();
            value = shape.form == HmpForm::Quoted ? fmt::format("'{}'", text) : text;
        } else {
            value = fmt::format("{}", to_uint64(*found));
        }
        line(out, shape.name, value + std::string(shape.unit));
    }
    return out;
}

// 10, 64k; 1.5 is not for us: digits and one letter.
Result<uint64_t> size_from_text(const std::string& text, uint64_t unit) {
    if (const auto bytes = util::parse_size_text(text, unit)) return *bytes;
    return make_error(ErrorKind::InvalidArgument, "Invalid size {}", text);
}

Result<Json> parameter_from_text(std::string_view name, const std::string& text) {
    const ParameterShape* shape = find_parameter(name);
    if (shape == nullptr) {
        return make_error(ErrorKind::InvalidArgument, "invalid parameter value: {}", name);
    }
    switch (shape->form) {
        case HmpForm::Bytes: {
            MIG_TRY(const uint64_t bytes, size_from_text(text, 1));
            return Json(bytes);
        }
        case HmpForm::Mebibytes: {
            MIG_TRY(const uint64_t bytes, size_from_text(text, kKibi * kKibi));
            return Json(bytes);
        }
        case HmpForm::OnOff: return switch_from_text(text);
        case HmpForm::Number:
        case HmpForm::Hidden: return number_from_text(text);
        case HmpForm::Text:
        case HmpForm::Quoted: return Json(text);
    }
    return make_error(ErrorKind::Internal, "parameter '{}' has no form", name);
}

}  // namespace ferry::monitor
