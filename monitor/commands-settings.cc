// SPDX-License-Identifier: BSD-2-Clause
// Capabilities and parameters of migrations.
#include "monitor/commands.h"
#include "monitor/settings.h"
#include "util/try.h"

namespace ferry::monitor {

using migration::Capability;

namespace {

Schema capability_names() {
    std::vector<std::string> names;
    for (size_t i = 0; i < migration::kCapabilityCount; ++i) {
        names.emplace_back(migration::to_string(static_cast<Capability>(i)));
    }
    Schema schema = Schema::enumeration(std::move(names));
    schema.deprecated = {"zero-blocks"};
    return schema;
}

Json capabilities_json(const migration::Capabilities& capabilities) {
    Json list = Json::array();
    for (size_t i = 0; i < migration::kCapabilityCount; ++i) {
        const auto capability = static_cast<Capability>(i);
        list.push_back({{"capability", migration::to_string(capability)},
                        {"state", capabilities.has(capability)}});
    }
    return list;
}

Result<> set_capabilities(VmControl& vm, const Json& wanted) {
    std::vector<std::pair<Capability, bool>> changes;
    for (const Json& entry : wanted) {
        MIG_TRY(const Capability capability,
                migration::capability_from_name(entry["capability"].get<std::string>()));
        changes.emplace_back(capability, entry["state"].get<bool>());
    }
    return vm.migration().set_capabilities(changes);
}

Result<> set_parameters(VmControl& vm, const Json& arguments) {
    MIG_TRY(const auto parameters, change_parameters(vm.migration().parameters(), arguments));
    return vm.migration().set_parameters(parameters);
}

}  // namespace

void add_setting_commands(CommandTable& table, VmControl& vm) {
    const Schema entry =
        Schema::object({{"capability", capability_names()}, {"state", {JsonType::Bool}}});
    table.add({"migrate-set-capabilities",
               {{"capabilities", Schema::array_of(entry)}},
               [&vm](const Invocation& call, Reply reply) {
                   std::move(reply).finish(set_capabilities(vm, call.arguments["capabilities"]));
               }});
    table.add({.name = "query-migrate-capabilities",
               .arguments = {},
               .handler =
                   [&vm](const Invocation&, Reply reply) {
                       std::move(reply).ok(capabilities_json(vm.migration().capabilities()));
                   },
               .returns = Schema::array_of(entry)});
    table.add(
        {"migrate-set-parameters", parameter_schema(), [&vm](const Invocation& call, Reply reply) {
             std::move(reply).finish(set_parameters(vm, call.arguments));
         }});
    table.add({.name = "query-migrate-parameters",
               .arguments = {},
               .handler =
                   [&vm](const Invocation&, Reply reply) {
                       std::move(reply).ok(parameters_to_json(vm.migration().parameters()));
                   },
               .returns = Schema::object(parameter_schema())});
}

}  // namespace ferry::monitor
