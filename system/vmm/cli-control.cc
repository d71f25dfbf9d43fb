// SPDX-License-Identifier: BSD-2-Clause
// Options about how the VM is controlled and watched: monitors, qtest, traces.
#include <algorithm>

#include "system/vmm/cli-draft.h"
#include "trace-points.h"
#include "util/tcp-port.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using util::CharAddress;

// "chardev:ID", or the address itself.
Result<CharAddress> char_address(Draft& draft, std::string_view option, const std::string& text) {
    constexpr std::string_view kChardev = "chardev:";
    if (!text.starts_with(kChardev)) {
        MIG_TRY(auto address, util::parse_char_address(text == "none" ? "null" : text), "-{}",
                option);
        return address;
    }
    const auto id = std::string_view(text).substr(kChardev.size());
    const auto found = std::ranges::find(draft.chardevs, id, &ChardevOptions::id);
    if (found == draft.chardevs.end()) {
        return make_error(ErrorKind::InvalidArgument, "-{} {}: chardev '{}' not found", option,
                          text, id);
    }
    return found->address;
}

Result<CharAddress> socket_address(SubOptions& options) {
    using Kind = CharAddress::Kind;
    MIG_TRY(const auto fd, options.take_number("fd"));
    if (fd) {
        if (*fd > INT32_MAX) {
            return make_error(ErrorKind::InvalidArgument, "{}: bad fd", options.context());
        }
        return CharAddress{.kind = Kind::Fd, .fd = static_cast<int>(*fd)};
    }
    CharAddress address{.kind = Kind::Unix};
    if (auto path = options.take("path")) {
        address.path = std::move(*path);
    } else {
        address.kind = Kind::Tcp;
        address.host = options.take("host").value_or("");
        MIG_TRY(address.port, options.take_required("port"));
        MIG_CHECK(util::check_tcp_port(address.port), "{}", options.context());
    }
    MIG_TRY(const auto server, options.take_switch("server"));
    MIG_TRY(const auto wait, options.take_switch("wait"));
    MIG_TRY([[maybe_unused]] const auto no_delay, options.take_switch("nodelay"));
    if (server == Switch::On) {
        address.side = CharAddress::Side::Listen;
        if (wait != Switch::Off) address.wait = CharAddress::Wait::ForClient;
    } else if (wait != Switch::Unset) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: 'wait' option is incompatible with socket in client connect mode",
                          options.context());
    }
    return address;
}

Result<CharAddress> file_address(SubOptions& options) {
    CharAddress address{.kind = CharAddress::Kind::File};
    MIG_TRY(address.path, options.take_required("path"));
    MIG_TRY(const auto append, options.take_switch("append"));
    if (append == Switch::On) address.existing = CharAddress::Existing::Kept;
    return address;
}

// On a terminal, keys that send signals go to this process, as with signal=on.
Result<CharAddress> stdio_address(SubOptions& options) {
    MIG_TRY(const auto signal, options.take_switch("signal"));
    if (signal == Switch::Off) {
        return make_error(ErrorKind::Unsupported, "{}: signal=off is not there", options.context());
    }
    return CharAddress{.kind = CharAddress::Kind::Stdio};
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
    } else if (backend == "file") {
        MIG_TRY(result.address, file_address(options));
    } else if (backend == "stdio") {
        MIG_TRY(result.address, stdio_address(options));
    } else if (backend != "null") {
        return make_error(ErrorKind::Unsupported,
                          "{}: backend '{}' is not there; only socket, file, stdio and null",
                          options.context(), backend);
    }
    MIG_CHECK(options.finish());
    draft.chardevs.push_back(std::move(result));
    return {};
}

Result<> add_monitor(Draft& draft, std::string_view option, const std::string& value,
                     MonitorOptions::Mode mode, monitor::Layout layout) {
    MIG_TRY(auto address, char_address(draft, option, value));
    if (address.kind == CharAddress::Kind::File) {
        return make_error(ErrorKind::Unsupported,
                          "-{} {}: a file takes no input; a monitor needs it", option, value);
    }
    if (address.kind != CharAddress::Kind::Null) {
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
    const auto to = value == "none" ? QtestLog::To::Nowhere : QtestLog::To::File;
    draft.options.qtest_log = {to, value};
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

Result<> serial(Draft& draft, const std::string& value) {
    if (draft.options.serials.size() == kMaxSerials) {
        return make_error(ErrorKind::LimitExceeded, "-serial {}: there can be {}", value,
                          kMaxSerials);
    }
    SerialOptions& port = draft.options.serials.emplace_back();
    if (value == "none") return {};
    MIG_TRY(port.address, char_address(draft, "serial", value));
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
        {"nographic", accept_and_do_nothing},
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
