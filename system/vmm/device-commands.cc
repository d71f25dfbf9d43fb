// SPDX-License-Identifier: BSD-2-Clause
// device_add and query-pci. (device_del is the monitor's: it needs no options.)
#include <fmt/format.h>

#include "system/vmm/devices.h"
#include "system/vmm/inherited-fds.h"
#include "system/vmm/management.h"
#include "system/vmm/pci-query.h"
#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::Invocation;
using monitor::Json;
using monitor::JsonType;
using monitor::Reply;

// Clients send texts, or JSON's own kinds; an option line has texts only.
Result<std::string> property_text(const std::string& name, const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_boolean()) return std::string(value.get<bool>() ? "on" : "off");
    if (value.is_number_integer()) return monitor::to_text(value);
    return make_error(ErrorKind::InvalidArgument, "Invalid parameter type for '{}', expected: {}",
                      name, "string");
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == ',' ? std::string(",,") : std::string(1, c);
    return out;
}

Result<DeviceOptions> options_from_arguments(const Json& arguments) {
    DeviceOptions options;
    options.driver = arguments["driver"].get<std::string>();
    std::string line;
    for (const auto& [name, value] : arguments.items()) {
        if (name == "driver" || name == "bus") continue;
        if (name.empty() || name.find_first_of(",=") != std::string::npos) {
            return make_error(ErrorKind::InvalidArgument, "Parameter '{}' is unexpected", name);
        }
        MIG_TRY(const std::string text, property_text(name, value));
        line += fmt::format("{}={},", name, escaped(text));
    }
    MIG_TRY(options.properties, SubOptions::parse("device_add " + options.driver, line));
    return options;
}

Result<> check_no_migration(Vm& vm) {
    if (!vm.migration().in_progress()) return {};
    return make_error(ErrorKind::InvalidState, "device_add not allowed while migrating");
}

Result<> check(Vm& vm, const Json& arguments) {
    const auto driver = arguments["driver"].get<std::string>();
    if (!check_device_type(driver)) {
        return make_error(ErrorKind::InvalidArgument, "'{}' is not a valid device model name",
                          driver);
    }
    if (arguments.contains("bus") && arguments["bus"] != bus_name(vm.options().machine)) {
        return make_error(ErrorKind::InvalidArgument, "Bus '{}' not found",
                          arguments["bus"].get<std::string>());
    }
    if (arguments.contains("id") && !is_identifier(arguments["id"].get<std::string>())) {
        return make_error(ErrorKind::InvalidArgument, "Parameter 'id' expects an identifier");
    }
    return check_no_migration(vm);
}

// The driver is called beside the VM's life; the device joins it between changes of the run state.
void device_add(Vm& vm, const Invocation& call, Reply reply) {
    const Json& arguments = call.arguments;
    if (auto good = check(vm, arguments); !good) return std::move(reply).fail(good.error());
    auto options = options_from_arguments(arguments);
    if (!options) return std::move(reply).fail(options.error());
    if (arguments.contains("fd") && arguments["fd"].is_string()) {
        auto fd = take_named_or_inherited_fd(arguments["fd"].get<std::string>(), call.fds);
        if (!fd) return std::move(reply).fail(fd.error());
        options->fd = std::make_shared<UniqueFd>(std::move(*fd));
    }
    auto admit = [&vm](vfio::VfioPciDevice::Join join) {
        vm.runstate().exclusively(
            [&vm, join = std::move(join)](system::Done over) mutable {
                join(check_no_migration(vm));
                over({});
            },
            [](Result<>) {});
    };
    vm.devices().create_later(*options, std::move(admit), std::move(reply).as_done());
}

// On the worker: reading a function may mean to ask its driver.
void query_pci(Management& management, Reply reply) {
    Vm& vm = management.vm();
    if (vm.board().bus() == nullptr) return std::move(reply).ok(Json::array());
    management.worker().post([&loop = vm.loop(), bus = vm.board().bus(),
                              bars = bar_sizes(vm.devices().all()),
                              reply = std::move(reply)]() mutable {
        Json answer = pci_json(*bus, bars);
        loop.post([reply = std::move(reply), answer = std::move(answer)]() mutable {
            std::move(reply).ok(std::move(answer));
        });
    });
}

}  // namespace

void add_device_commands(monitor::CommandTable& table, Management& management) {
    constexpr auto kOptional = monitor::Presence::Optional;
    table.add({.name = "device_add",
               .arguments = {{"driver", {JsonType::String}},
                             {"bus", {JsonType::String}, kOptional},
                             {"id", {JsonType::String}, kOptional}},
               .handler = [&vm = management.vm()](
                              const Invocation& call,
                              Reply reply) { device_add(vm, call, std::move(reply)); },
               .beyond = monitor::Beyond::Passed});
    table.add({.name = "query-pci",
               .arguments = {},
               .handler = [&management](const Invocation&,
                                        Reply reply) { query_pci(management, std::move(reply)); },
               .returns = monitor::Schema::array_of(pci_schema())});
}

}  // namespace ferry::vmm
