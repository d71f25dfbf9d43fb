// SPDX-License-Identifier: BSD-2-Clause
// Options about how the VM is controlled and watched: monitors, qtest, traces.
#include <algorithm>

#include "system/vmm/cli-draft.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

Result<CharAddress> char_address(Draft& draft, std::string_view option, const std::string& text) {
    constexpr std::string_view kChardev = "chardev:";
    if (text == "none" || text == "null") return CharAddress(NullDevice());
    if (text.starts_with(kChardev)) {
        const auto id = std::string_view(text).substr(kChardev.size());
        const auto found = std::ranges::find(draft.chardevs, id, &ChardevOptions::id);
        if (found == draft.chardevs.end()) {
            return make_error(ErrorKind::InvalidArgument, "-{} {}: chardev '{}' not found", option,
                              text, id);
        }
        return found->address;
    }
    MIG_TRY(auto address, monitor::parse_monitor_address(text), "-{} {}", option, text);
    return CharAddress(std::move(address));
}

Result<CharAddress> socket_address(SubOptions& options) {
    MIG_TRY(const auto fd, options.take_number("fd"));
    if (fd) {
        if (*fd > INT32_MAX) {
            return make_error(ErrorKind::InvalidArgument, "{}: bad fd", options.context());
        }
        return CharAddress(InheritedFd{static_cast<int>(*fd)});
    }
    using monitor::MonitorAddress;
    MonitorAddress address;
    if (auto path = options.take("path")) {
        address.kind = MonitorAddress::Kind::Unix;
        address.path = std::move(*path);
    } else {
        address.kind = MonitorAddress::Kind::Tcp;
        address.host = options.take("host").value_or("");
        MIG_TRY(address.port, options.take_required("port"));
    }
    MIG_TRY(const auto server, options.take_switch("server"));
    MIG_TRY(const auto wait, options.take_switch("wait"));
    if (server == Switch::On) {
        address.side = MonitorAddress::Side::Listen;
        if (wait != Switch::Off) address.wait = MonitorAddress::Wait::ForClient;
    }
    return CharAddress(std::move(address));
}

Result<> chardev(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-chardev " + value, value, "backend"));
    MIG_TRY(const auto backend, options.take_required("backend"));
    ChardevOptions result;
    MIG_TRY(result.id, options.take_required("id"));
    if (std::ranges::find(draft.chardevs, result.id, &ChardevOptions::id) != draft.chardevs.end()) {
        return make_error(ErrorKind::InvalidArgument, "{}: duplicate id '{}'", options.context(),
                          result.id);
    }
    if (backend == "socket") {
        MIG_TRY(result.address, socket_address(options));
    } else if (backend == "stdio") {
        result.address = monitor::MonitorAddress();
    } else if (backend != "null") {
        return make_error(ErrorKind::Unsupported,
                          "{}: backend '{}' is not there; only socket, stdio and null",
                          options.context(), backend);
    }
    MIG_CHECK(options.finish());
    draft.chardevs.push_back(std::move(result));
    return {};
}

Result<> add_monitor(Draft& draft, std::string_view option, const std::string& value,
                     MonitorOptions::Mode mode, monitor::Layout layout) {
    MIG_TRY(auto address, char_address(draft, option, value));
    if (!std::holds_alternative<NullDevice>(address)) {
        draft.options.monitors.push_back({mode, layout, std::move(address)});
    }
    return {};
}

Result<> mon(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-mon " + value, value, "chardev"));
    MIG_TRY(const auto id, options.take_required("chardev"));
    const std::string mode = options.take("mode").value_or("readline");
    MIG_TRY(const auto pretty, options.take_switch("pretty"));
    MIG_CHECK(options.finish());
    if (mode != "control" && mode != "readline") {
        return make_error(ErrorKind::InvalidArgument, "{}: mode is 'control' or 'readline'",
                          options.context());
    }
    return add_monitor(
        draft, "mon", "chardev:" + id,
        mode == "control" ? MonitorOptions::Mode::Control : MonitorOptions::Mode::Readline,
        pretty == Switch::On ? monitor::Layout::Pretty : monitor::Layout::Line);
}

Handler monitor_on(std::string_view option, MonitorOptions::Mode mode, monitor::Layout layout) {
    return [=](Draft& draft, const std::string& value) {
        return add_monitor(draft, option, value, mode, layout);
    };
}

Result<> qtest(Draft& draft, const std::string& value) {
    MIG_TRY(auto address, char_address(draft, "qtest", value));
    draft.options.qtest = std::move(address);
    return {};
}

Result<> qtest_log(Draft& draft, const std::string& value) {
    draft.options.qtest_log = value == "none" ? "" : value;
    return {};
}

Result<> trace_points(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-trace " + value, value, "enable"));
    if (auto pattern = options.take("enable")) {
        if (*pattern == "help") {
            std::string list;
            for (const std::string_view event : trace::kEventNames) {
                list += std::string(event) + "\n";
            }
            draft.print = list;
            return {};
        }
        draft.options.traces.push_back(std::move(*pattern));
    }
    if (auto file = options.take("file")) draft.options.trace_file = std::move(*file);
    return options.finish();
}

// What a monitor could be at, as a serial port has it.
Result<chardev::CharAddress> serial_chardev(const CharAddress& chardev, const std::string& value) {
    using monitor::MonitorAddress;
    chardev::CharAddress address;
    if (std::holds_alternative<NullDevice>(chardev)) return address;
    const auto* at = std::get_if<MonitorAddress>(&chardev);
    if (at == nullptr) {
        return make_error(ErrorKind::Unsupported,
                          "-serial {}: not over an inherited descriptor; use a path", value);
    }
    using Address = chardev::CharAddress;
    switch (at->kind) {
        case MonitorAddress::Kind::Stdio: address.kind = Address::Kind::Stdio; break;
        case MonitorAddress::Kind::Unix: address.kind = Address::Kind::Unix; break;
        case MonitorAddress::Kind::Tcp: address.kind = Address::Kind::Tcp; break;
    }
    const bool listens = at->side == MonitorAddress::Side::Listen;
    address.side = listens ? Address::Side::Listen : Address::Side::Connect;
    const bool waits = at->wait == MonitorAddress::Wait::ForClient;
    address.wait = waits ? Address::Wait::ForClient : Address::Wait::No;
    address.path = at->path;
    address.host = at->host;
    address.port = at->port;
    return address;
}

Result<> serial(Draft& draft, const std::string& value) {
    if (draft.options.serials.size() == kMaxSerials) {
        return make_error(ErrorKind::LimitExceeded, "-serial {}: there can be {}", value,
                          kMaxSerials);
    }
    SerialOptions& port = draft.options.serials.emplace_back();
    if (value == "none") return {};
    if (value.starts_with("chardev:")) {
        MIG_TRY(const auto chardev, char_address(draft, "serial", value));
        MIG_TRY(port.address, serial_chardev(chardev, value));
        return {};
    }
    MIG_TRY(port.address, chardev::parse_char_address(value), "-serial {}", value);
    return {};
}

Result<> pidfile(Draft& draft, const std::string& value) {
    draft.options.pidfile = value;
    return {};
}

}  // namespace

void add_control_options(Handlers& handlers) {
    using Mode = MonitorOptions::Mode;
    using monitor::Layout;
    handlers.insert({
        {"qmp", monitor_on("qmp", Mode::Control, Layout::Line)},
        {"qmp-pretty", monitor_on("qmp-pretty", Mode::Control, Layout::Pretty)},
        {"monitor", monitor_on("monitor", Mode::Readline, Layout::Line)},
        {"chardev", chardev},
        {"mon", mon},
        {"qtest", qtest},
        {"qtest-log", qtest_log},
        {"display", only("display", {"none"})},
        {"vga", only("vga", {"none"})},
        {"audio", only("audio", {"none"})},
        {"nic", only("nic", {"none"})},
        {"net", only("net", {"none"})},
        {"serial", serial},
        {"parallel", only("parallel", {"none", "null"})},
        {"trace", trace_points},
        {"pidfile", pidfile},
    });
}

}  // namespace ferry::vmm
