// SPDX-License-Identifier: BSD-2-Clause
// Commands about objects: those that the user made, and the tree in which all are found.
#include <algorithm>

#include "system/vmm/devices.h"
#include "system/vmm/management.h"
#include "system/vmm/qom.h"
#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::ErrorClass;
using monitor::Invocation;
using monitor::Json;
using monitor::JsonType;
using monitor::Presence;
using monitor::Reply;
using monitor::Schema;

void object_add(Management& management, const Invocation& call, Reply reply) {
    Json properties = call.arguments;
    const auto type = properties["qom-type"].get<std::string>();
    const auto id = properties["id"].get<std::string>();
    properties.erase("qom-type");
    properties.erase("id");
    std::move(reply).finish(management.objects().add(type, id, properties, call.fds));
}

Error not_found(std::string_view path) {
    return make_error(ErrorKind::InvalidArgument, "Device '{}' not found", path);
}

// Calls `use` with the node that the argument "path" names, or answers that there is none.
void with_node(Management& management, const Invocation& call, Reply reply,
               const std::function<void(const QomNode&, Reply)>& use) {
    const auto path = call.arguments["path"].get<std::string>();
    const auto tree = qom_tree(management.vm(), management.objects());
    const QomFound found = qom_find(tree, path);
    switch (found.outcome) {
        case QomLookup::Found: return use(*found.node, std::move(reply));
        case QomLookup::Missing:
            return std::move(reply).fail(ErrorClass::DeviceNotFound, not_found(path));
        case QomLookup::Ambiguous:
            return std::move(reply).fail(
                make_error(ErrorKind::InvalidArgument, "Path '{}' is ambiguous", path));
    }
}

void with_property(Management& management, const Invocation& call, Reply reply,
                   const std::function<void(const QomNode&, const QomProperty&, Reply)>& use) {
    const auto name = call.arguments["property"].get<std::string>();
    with_node(management, call, std::move(reply), [&](const QomNode& node, Reply answer) {
        const auto found = std::ranges::find_if(
            node.properties, [&](const QomProperty& one) { return one.is_called(name); });
        if (found == node.properties.end()) {
            return std::move(answer).fail(make_error(
                ErrorKind::InvalidArgument, "Property '{}.{}' not found", node.type, name));
        }
        use(node, *found, std::move(answer));
    });
}

Json properties_json(const QomNode& node) {
    Json list = Json::array();
    for (const QomProperty& property : node.properties) {
        list.push_back({{"name", property.name}, {"type", property.type}});
    }
    return list;
}

Result<> set_property(const QomNode& node, const QomProperty& property, const Json& value) {
    if (property.set) return property.set(value);
    if (property.fixed == QomProperty::Fixed::No) {
        return make_error(ErrorKind::InvalidArgument, "Property '{}.{}' is not writable", node.type,
                          property.name);
    }
    return make_error(ErrorKind::InvalidState,
                      "Attempt to set property '{}' on device '{}' (type '{}') after it was "
                      "realized",
                      property.name, node.name(), node.type);
}

Json memdev_json(const BackendInfo& backend) {
    return {{"id", backend.options.id},
            {"size", backend.options.size},
            {"merge", false},
            {"dump", true},
            {"prealloc", false},
            {"share", true},
            {"host-nodes", Json::array()},
            {"policy", "default"}};
}

Schema memdev_schema() {
    return Schema::object({{"id", {JsonType::String}},
                           {"size", {JsonType::Integer}},
                           {"merge", {JsonType::Bool}},
                           {"dump", {JsonType::Bool}},
                           {"prealloc", {JsonType::Bool}},
                           {"share", {JsonType::Bool}},
                           {"host-nodes", Schema::array_of({JsonType::Integer})},
                           {"policy", {JsonType::String}}});
}

std::vector<monitor::Member> path_and_property() {
    return {{"path", {JsonType::String}}, {"property", {JsonType::String}}};
}

Schema property_list() {
    return Schema::array_of(
        Schema::object({{"name", {JsonType::String}}, {"type", {JsonType::String}}}));
}

void add_qom_commands(monitor::CommandTable& table, Management& management) {
    table.add({.name = "qom-list",
               .arguments = {{"path", {JsonType::String}}},
               .handler =
                   [&management](const Invocation& call, Reply reply) {
                       with_node(management, call, std::move(reply),
                                 [](const QomNode& node, Reply answer) {
                                     std::move(answer).ok(properties_json(node));
                                 });
                   },
               .returns = property_list()});
    table.add({.name = "qom-get",
               .arguments = path_and_property(),
               .handler =
                   [&management](const Invocation& call, Reply reply) {
                       with_property(management, call, std::move(reply),
                                     [](const QomNode&, const QomProperty& property, Reply answer) {
                                         std::move(answer).ok(property.value);
                                     });
                   },
               .returns = {JsonType::Any}});
    auto setting = path_and_property();
    setting.push_back({"value", {JsonType::Any}});
    table.add({"qom-set", std::move(setting), [&management](const Invocation& call, Reply reply) {
                   with_property(
                       management, call, std::move(reply),
                       [&](const QomNode& node, const QomProperty& property, Reply answer) {
                           std::move(answer).finish(
                               set_property(node, property, call.arguments["value"]));
                       });
               }});
}

}  // namespace

void add_object_commands(monitor::CommandTable& table, Management& management) {
    table.add(
        {.name = "object-add",
         .arguments = {{"qom-type", Schema::enumeration(Objects::types())},
                       {"id", {JsonType::String}}},
         .handler = [&management](const Invocation& call,
                                  Reply reply) { object_add(management, call, std::move(reply)); },
         .beyond = monitor::Beyond::Passed});
    table.add({"object-del",
               {{"id", {JsonType::String}}},
               [&management](const Invocation& call, Reply reply) {
                   std::move(reply).finish(
                       management.objects().remove(call.arguments["id"].get<std::string>()));
               }});
    table.add({.name = "query-memdev",
               .arguments = {},
               .handler =
                   [&management](const Invocation&, Reply reply) {
                       Json list = Json::array();
                       for (const BackendInfo& backend : management.objects().backends()) {
                           list.push_back(memdev_json(backend));
                       }
                       std::move(reply).ok(std::move(list));
                   },
               .returns = Schema::array_of(memdev_schema())});
    add_qom_commands(table, management);
}

}  // namespace ferry::vmm
