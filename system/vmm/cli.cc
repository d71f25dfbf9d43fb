// SPDX-License-Identifier: BSD-2-Clause
// From arguments to Options. Each option has one function; what is not handled is refused by name.
#include <algorithm>
#include <array>
#include <cctype>
#include <functional>
#include <map>

#include "system/vmm/devices.h"
#include "system/vmm/object-options.h"
#include "system/vmm/options.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// What is being built up, and what later options refer to.
struct Draft {
    Options options;
    SubOptions machine;  // merged
    std::vector<std::string> accelerators;
    std::vector<ChardevOptions> chardevs;
    std::optional<std::string> print;  // something was asked for that ends in printing
};

using Handler = std::function<Result<>(Draft&, const std::string& value)>;

// --- Addresses of monitors and qtest.

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

// --- The machine.

Result<> machine(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-machine", value, "type"));
    const auto type = options.take("type");
    if (type == "help") {
        draft.print =
            "Supported machines are:\nnone    empty machine: RAM only\n"
            "q35     RAM and a PCI bus (default)\n";
        return {};
    }
    if (type == "none") {
        draft.options.machine = MachineType::None;
    } else if (type == "q35") {
        draft.options.machine = MachineType::Q35;
    } else if (type) {
        return make_error(ErrorKind::Unsupported,
                          "-machine {}: unsupported machine type; only q35 and none", *type);
    }
    draft.machine.merge(std::move(options));
    return {};
}

Result<> accel(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-accel " + value, value, "accel"));
    MIG_TRY(const auto name, options.take_required("accel"));
    if (name == "help") {
        draft.print = "Accelerators supported:\nqtest\n";
        return {};
    }
    MIG_CHECK(options.finish());
    draft.accelerators.push_back(name);
    return {};
}

Result<> finish_machine(Draft& draft) {
    draft.machine.set_context("-machine");
    if (const auto list = draft.machine.take("accel")) {
        for (std::string_view rest = *list; !rest.empty();) {
            const size_t end = std::min(rest.find(':'), rest.size());
            draft.accelerators.emplace_back(rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    draft.options.memory_backend = draft.machine.take("memory-backend").value_or("");
    MIG_CHECK(draft.machine.finish());
    if (draft.accelerators.empty()) {
        return make_error(ErrorKind::InvalidArgument,
                          "no accelerator given, and only one is there: add -accel qtest");
    }
    // QEMU's rule: of several, the first that works.
    if (std::ranges::find(draft.accelerators, "qtest") == draft.accelerators.end()) {
        return make_error(ErrorKind::Unsupported, "-accel {}: not there; only qtest",
                          draft.accelerators.front());
    }
    const std::string& backend = draft.options.memory_backend;
    if (!backend.empty() &&
        std::ranges::find(draft.options.backends, backend, &BackendOptions::id) ==
            draft.options.backends.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "-machine memory-backend={}: no -object of this id", backend);
    }
    return {};
}

Result<> memory(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-m " + value, value, "size"));
    MIG_TRY(const auto size, options.take_size("size", kMiB));
    MIG_CHECK(options.finish());
    if (!size || *size == 0 || *size % system::kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "-m {}: the size must be a positive multiple of {} bytes", value,
                          system::kPageSize);
    }
    draft.options.ram_bytes = *size;
    return {};
}

Result<> name(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-name " + value, value, "guest"));
    if (auto guest = options.take("guest")) draft.options.name = std::move(*guest);
    MIG_TRY(const auto debug_threads, options.take_switch("debug-threads"));
    if (debug_threads == Switch::Off) {
        return make_error(ErrorKind::Unsupported, "{}: threads always have names",
                          options.context());
    }
    return options.finish();
}

Result<> uuid(Draft& draft, const std::string& value) {
    constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    bool good = value.size() == kForm.size();
    for (size_t i = 0; good && i < kForm.size(); ++i) {
        good = kForm[i] == '-' ? value[i] == '-'
                               : std::isxdigit(static_cast<unsigned char>(value[i])) != 0;
    }
    if (!good) {
        return make_error(ErrorKind::InvalidArgument, "-uuid {}: expecting the form {}", value,
                          kForm);
    }
    draft.options.uuid = value;
    return {};
}

// --- Objects, devices, and the rest.

Result<> object(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-object " + value, value, "qom-type"));
    MIG_TRY(const auto type, options.take_required("qom-type"));
    if (type == "help" || options.has("help")) {
        MIG_TRY(draft.print, object_help(type));
        return {};
    }
    return add_object(draft.options, type, options);
}

Result<> device(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-device " + value, value, "driver"));
    MIG_TRY(auto driver, options.take_required("driver"));
    if (driver == "help" || options.has("help")) {
        MIG_TRY(draft.print, device_help(driver));
        return {};
    }
    MIG_CHECK(check_device_type(driver));
    draft.options.devices.push_back({std::move(driver), std::move(options)});
    return {};
}

Result<> global(Draft& draft, const std::string& value) {
    constexpr std::string_view kPrefix = "migration.";
    const size_t equals = value.find('=');
    if (!value.starts_with(kPrefix) || equals == std::string::npos) {
        return make_error(ErrorKind::Unsupported,
                          "-global {}: not there; only migration.NAME=VALUE", value);
    }
    draft.options.migration_presets.emplace_back(
        value.substr(kPrefix.size(), equals - kPrefix.size()), value.substr(equals + 1));
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

Result<> incoming(Draft& draft, const std::string& value) {
    if (value.empty()) return make_error(ErrorKind::InvalidArgument, "-incoming: URI missing");
    draft.options.incoming = value;
    return {};
}

Handler only(std::string_view option, std::initializer_list<std::string_view> good) {
    return [option, good = std::vector(good)](Draft&, const std::string& value) -> Result<> {
        if (std::ranges::find(good, value) != good.end()) return {};
        return make_error(ErrorKind::Unsupported, "-{} {}: not there; only '{}'", option, value,
                          good.front());
    };
}

Handler monitor_on(std::string_view option, MonitorOptions::Mode mode, monitor::Layout layout) {
    return [=](Draft& draft, const std::string& value) {
        return add_monitor(draft, option, value, mode, layout);
    };
}

const std::map<std::string_view, Handler, std::less<>>& handlers() {
    using Mode = MonitorOptions::Mode;
    using monitor::Layout;
    static const std::map<std::string_view, Handler, std::less<>> kHandlers = {
        {"machine", machine},
        {"M", machine},
        {"accel", accel},
        {"m", memory},
        {"name", name},
        {"uuid", uuid},
        {"S",
         [](Draft& draft, const std::string&) -> Result<> {
             draft.options.autostart = Options::Autostart::No;
             return {};
         }},
        {"nodefaults", [](Draft&, const std::string&) -> Result<> { return {}; }},
        {"no-user-config", [](Draft&, const std::string&) -> Result<> { return {}; }},
        {"object", object},
        {"device", device},
        {"incoming", incoming},
        {"only-migratable",
         [](Draft& draft, const std::string&) -> Result<> {
             draft.options.only_migratable = Options::OnlyMigratable::Yes;
             return {};
         }},
        {"global", global},
        {"qmp", monitor_on("qmp", Mode::Control, Layout::Line)},
        {"qmp-pretty", monitor_on("qmp-pretty", Mode::Control, Layout::Pretty)},
        {"monitor", monitor_on("monitor", Mode::Readline, Layout::Line)},
        {"chardev", chardev},
        {"mon", mon},
        {"qtest",
         [](Draft& draft, const std::string& value) -> Result<> {
             MIG_TRY(auto address, char_address(draft, "qtest", value));
             draft.options.qtest = std::move(address);
             return {};
         }},
        {"qtest-log",
         [](Draft& draft, const std::string& value) -> Result<> {
             draft.options.qtest_log = value == "none" ? "" : value;
             return {};
         }},
        {"display", only("display", {"none"})},
        {"vga", only("vga", {"none"})},
        {"audio", only("audio", {"none"})},
        {"nic", only("nic", {"none"})},
        {"net", only("net", {"none"})},
        {"serial", only("serial", {"none", "null"})},
        {"parallel", only("parallel", {"none", "null"})},
        {"trace", trace_points},
        {"pidfile",
         [](Draft& draft, const std::string& value) -> Result<> {
             draft.options.pidfile = value;
             return {};
         }},
        {"version",
         [](Draft& draft, const std::string&) -> Result<> {
             draft.print = version_text();
             return {};
         }},
        {"help",
         [](Draft& draft, const std::string&) -> Result<> {
             draft.print = help_text();
             return {};
         }},
        {"h",
         [](Draft& draft, const std::string&) -> Result<> {
             draft.print = help_text();
             return {};
         }},
    };
    return kHandlers;
}

struct Given {
    std::string_view name;  // of the option table
    std::string value;
};

Result<std::vector<Given>> split_arguments(const std::vector<std::string>& arguments) {
    std::vector<Given> given;
    for (auto at = arguments.begin(); at != arguments.end(); ++at) {
        std::string_view name = *at;
        if (!name.starts_with('-') || name.size() < 2) {
            return make_error(ErrorKind::InvalidArgument,
                              "{}: not an option (there are no disk images)", *at);
        }
        name.remove_prefix(name.starts_with("--") ? 2 : 1);
        const auto row = std::ranges::find(option_table(), name, &OptionHelp::name);
        if (row == option_table().end()) {
            return make_error(ErrorKind::InvalidArgument, "{}: invalid option", *at);
        }
        if (row->argument.empty()) {
            given.push_back({row->name, {}});
            continue;
        }
        if (std::next(at) == arguments.end()) {
            return make_error(ErrorKind::InvalidArgument, "{}: requires an argument", *at);
        }
        given.push_back({row->name, *++at});
    }
    return given;
}

}  // namespace

Result<std::variant<Options, PrintAndExit>> parse_command_line(
    const std::vector<std::string>& arguments) {
    MIG_TRY(const auto given, split_arguments(arguments));
    Draft draft;
    // What others refer to by id comes first, wherever it stands.
    const auto run = [&](bool referred_to) -> Result<> {
        for (const Given& option : given) {
            if (draft.print || (option.name == "chardev") != referred_to) continue;
            MIG_CHECK(handlers().at(option.name)(draft, option.value));
        }
        return {};
    };
    MIG_CHECK(run(true));
    MIG_CHECK(run(false));
    if (draft.print) return PrintAndExit{std::move(*draft.print)};
    MIG_CHECK(finish_machine(draft));
    return std::move(draft.options);
}

}  // namespace ferry::vmm
