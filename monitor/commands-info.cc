// SPDX-License-Identifier: BSD-2-Clause
// Commands that only tell.
#include <algorithm>

#include "monitor/answers.h"
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
                  {"deprecated", false},        {"acpi", machine.acpi == MachineInfo::Acpi::Yes}};
    if (!machine.alias.empty()) entry["alias"] = machine.alias;
    if (machine.is_default == MachineInfo::Default::Yes) entry["is-default"] = true;
    return entry;
}

const TypeInfo* find_type(const std::vector<TypeInfo>& types, std::string_view name) {
    const auto found = std::ranges::find(types, name, &TypeInfo::name);
    return found == types.end() ? nullptr : &*found;
}

bool is_a(const std::vector<TypeInfo>& types, const TypeInfo& type, std::string_view wanted) {
    for (const TypeInfo* at = &type; at != nullptr; at = find_type(types, at->parent)) {
        if (at->name == wanted) return true;
    }
    return false;
}

Json list_types(const std::vector<TypeInfo>& types, const Json& arguments) {
    const std::string wanted = arguments.value("implements", std::string("object"));
    const bool abstract_too = bool_or(arguments, "abstract", false);
    Json list = Json::array();
    for (const TypeInfo& type : types) {
        const bool is_abstract = type.abstract == TypeInfo::Abstract::Yes;
        if ((is_abstract && !abstract_too) || !is_a(types, type, wanted)) continue;
        Json entry = {{"name", type.name}};
        if (!type.parent.empty()) entry["parent"] = type.parent;
        if (is_abstract) entry["abstract"] = true;
        list.push_back(std::move(entry));
    }
    return list;
}

Json cpus_json(const VmControl& vm) {
    Json list = Json::array();
    for (const CpuInfo& cpu : vm.cpus()) {
        list.push_back({{"cpu-index", list.size()},
                        {"qom-path", cpu.qom_path},
                        {"thread-id", cpu.thread_id},
                        {"target", vm.target()}});
    }
    return list;
}

// One whose handler needs no arguments and answers at once.
void add_query(CommandTable& table, std::string name, std::function<Json()> answer, Schema shape) {
    table.add({.name = std::move(name),
               .arguments = {},
               .handler = [answer = std::move(answer)](
                              const Invocation&, Reply reply) { std::move(reply).ok(answer()); },
               .returns = std::move(shape)});
}

Schema text_member(const char* name, Presence presence = Presence::Required) {
    return Schema::object({{name, {JsonType::String}, presence}});
}

}  // namespace

Json version_info() {
    return {{"qemu", {{"major", kQmpMajor}, {"minor", kQmpMinor}, {"micro", kQmpMicro}}},
            {"package", "ferry-" FERRY_VERSION}};
}

void add_info_commands(CommandTable& table, VmControl& vm) {
    add_query(table, "query-version", version_info, version_answer());
    add_query(
        table, "query-name",
        [&vm] {
            const std::string name = vm.name();
            return name.empty() ? Json::object() : Json{{"name", name}};
        },
        text_member("name", Presence::Optional));
    add_query(
        table, "query-uuid", [&vm] { return Json{{"UUID", vm.uuid()}}; }, text_member("UUID"));
    add_query(
        table, "query-target", [&vm] { return Json{{"arch", vm.target()}}; }, text_member("arch"));
    table.add(
        {.name = "query-machines",
         .arguments = {{"compat-props", {JsonType::Bool}, Presence::Optional, Stability::Unstable}},
         .handler =
             [&vm](const Invocation& call, Reply reply) {
                 const bool with_properties = bool_or(call.arguments, "compat-props", false);
                 Json list = Json::array();
                 for (const MachineInfo& machine : vm.machines()) {
                     Json& entry = list.emplace_back(machine_json(machine));
                     // A version of a machine has no properties of its own so far.
                     if (with_properties) entry["compat-props"] = Json::array();
                 }
                 std::move(reply).ok(std::move(list));
             },
         .returns = Schema::array_of(machine_answer())});
    table.add({.name = "query-kvm",
               .arguments = {},
               .handler =
                   [&vm](const Invocation&, Reply reply) {
                       const KvmInfo kvm = vm.kvm();
                       std::move(reply).ok({{"enabled", kvm.enabled == KvmInfo::Enabled::Yes},
                                            {"present", kvm.present == KvmInfo::Present::Yes}});
                   },
               .returns =
                   Schema::object({{"enabled", {JsonType::Bool}}, {"present", {JsonType::Bool}}})});
    table.add(
        {.name = "query-cpus-fast",
         .arguments = {},
         .handler = [&vm](const Invocation&, Reply reply) { std::move(reply).ok(cpus_json(vm)); },
         .returns = Schema::array_of(Schema::object({{"cpu-index", {JsonType::Integer}},
                                                     {"qom-path", {JsonType::String}},
                                                     {"thread-id", {JsonType::Integer}},
                                                     {"target", {JsonType::String}}}))});
    table.add({.name = "query-current-machine",
               .arguments = {},
               .handler =
                   [&vm](const Invocation&, Reply reply) {
                       std::move(reply).ok(
                           {{"wakeup-suspend-support",
                             vm.wakeup_support() == VmControl::WakeupSupport::Yes}});
                   },
               .returns = Schema::object({{"wakeup-suspend-support", {JsonType::Bool}}})});
    table.add({.name = "qom-list-types",
               .arguments = {{"implements", {JsonType::String}, Presence::Optional},
                             {"abstract", {JsonType::Bool}, Presence::Optional}},
               .handler =
                   [&vm](const Invocation& call, Reply reply) {
                       std::move(reply).ok(list_types(vm.types(), call.arguments));
                   },
               .returns = Schema::array_of(
                   Schema::object({{"name", {JsonType::String}},
                                   {"parent", {JsonType::String}, Presence::Optional},
                                   {"abstract", {JsonType::Bool}, Presence::Optional}}))});
    add_query(
        table, "query-commands",
        [&table] {
            Json list = Json::array({{{"name", "qmp_capabilities"}}});
            for (const std::string& name : table.names()) list.push_back({{"name", name}});
            return list;
        },
        Schema::array_of(text_member("name")));
}

}  // namespace ferry::monitor
