// SPDX-License-Identifier: BSD-2-Clause
// Commands that only tell.
#include "monitor/commands.h"

namespace ferry::monitor {

namespace {

// Clients derive from it which commands, members and texts to expect.
constexpr int kQmpMajor = 10;
constexpr int kQmpMinor = 0;
constexpr int kQmpMicro = 0;

Json machine_json(const MachineInfo& machine) {
    Json entry = {{"name", machine.name},       {"cpu-max", machine.cpu_max},
                  {"hotpluggable-cpus", false}, {"numa-mem-supported", false},
                  {"deprecated", false},        {"acpi", false}};
    if (!machine.alias.empty()) entry["alias"] = machine.alias;
    if (machine.is_default == MachineInfo::Default::Yes) entry["is-default"] = true;
    return entry;
}

// One whose handler needs no arguments and answers at once.
void add_query(CommandTable& table, std::string name, std::function<Json()> answer) {
    table.add({std::move(name), {}, [answer = std::move(answer)](const Invocation&, Reply reply) {
                   std::move(reply).ok(answer());
               }});
}

}  // namespace

Json version_info() {
    return {{"qemu", {{"major", kQmpMajor}, {"minor", kQmpMinor}, {"micro", kQmpMicro}}},
            {"package", "ferry-" FERRY_VERSION}};
}

void add_info_commands(CommandTable& table, VmControl& vm) {
    add_query(table, "query-version", version_info);
    add_query(table, "query-name", [&vm] {
        const std::string name = vm.name();
        return name.empty() ? Json::object() : Json{{"name", name}};
    });
    add_query(table, "query-uuid", [&vm] { return Json{{"UUID", vm.uuid()}}; });
    add_query(table, "query-target", [&vm] { return Json{{"arch", vm.target()}}; });
    add_query(table, "query-machines", [&vm] {
        Json list = Json::array();
        for (const MachineInfo& machine : vm.machines()) list.push_back(machine_json(machine));
        return list;
    });
    add_query(table, "query-commands", [&table] {
        Json list = Json::array({{{"name", "qmp_capabilities"}}});
        for (const std::string& name : table.names()) list.push_back({{"name", name}});
        return list;
    });
}

}  // namespace ferry::monitor
