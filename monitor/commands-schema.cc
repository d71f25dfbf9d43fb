// SPDX-License-Identifier: BSD-2-Clause
// query-qmp-schema: what commands take and give and which events there are, as entities that refer
// to each other by name. Types that a client is not to rely on by name are numbered.
#include <map>
#include <utility>

#include "monitor/commands.h"
#include "monitor/events.h"

namespace ferry::monitor {

namespace {

std::string_view builtin_name(JsonType type) {
    switch (type) {
        case JsonType::String: return "str";
        case JsonType::Bool: return "bool";
        case JsonType::Integer:
        case JsonType::Uint8:
        case JsonType::Uint16:
        case JsonType::Uint32:
        case JsonType::Uint64: return "int";
        case JsonType::Any:
        case JsonType::StringOrNull:
        case JsonType::Enum:
        case JsonType::Object:
        case JsonType::Array: return "any";
    }
    return "any";
}

std::string_view json_type(std::string_view builtin) {
    if (builtin == "str") return "string";
    if (builtin == "bool") return "boolean";
    if (builtin == "int") return "int";
    if (builtin == "null") return "null";
    return "value";
}

class Introspection {
 public:
    void command(const Command& command) {
        Json entity = {{"name", command.name},
                       {"meta-type", "command"},
                       {"arg-type", object_type(command.arguments)},
                       {"ret-type", type_name(command.returns)}};
        if (command.out_of_band == OutOfBand::Yes) entity["allow-oob"] = true;
        entities_.push_back(std::move(entity));
    }
    void event(const EventShape& event) {
        entities_.push_back(
            {{"name", event.name}, {"meta-type", "event"}, {"arg-type", object_type(event.data)}});
    }
    Json take() && { return std::move(entities_); }

 private:
    // The name of the type's entity, which is added when it is new.
    std::string type_name(const Schema& schema);
    std::string object_type(const std::vector<Member>& members);
    std::string builtin(std::string_view name);
    // An entity without its name; equal ones share it.
    std::string numbered(Json entity);
    std::string named(const std::string& name, Json entity);

    Json entities_ = Json::array();
    std::map<std::string, std::string> names_;  // by the entity's text
};

std::string Introspection::type_name(const Schema& schema) {
    switch (schema.type) {
        case JsonType::Enum: {
            Json members = Json::array();
            for (const std::string& value : schema.values) members.push_back({{"name", value}});
            return numbered(
                {{"meta-type", "enum"}, {"members", members}, {"values", schema.values}});
        }
        case JsonType::Object: return object_type(schema.members);
        case JsonType::Array: {
            const std::string element = type_name(schema.element.front());
            return named("[" + element + "]", {{"meta-type", "array"}, {"element-type", element}});
        }
        case JsonType::StringOrNull:
            return numbered({{"meta-type", "alternate"},
                             {"members", Json::array({{{"type", builtin("str")}},
                                                      {{"type", builtin("null")}}})}});
        case JsonType::Any:
        case JsonType::String:
        case JsonType::Bool:
        case JsonType::Integer:
        case JsonType::Uint8:
        case JsonType::Uint16:
        case JsonType::Uint32:
        case JsonType::Uint64: return builtin(builtin_name(schema.type));
    }
    return builtin("any");
}

std::string Introspection::object_type(const std::vector<Member>& members) {
    Json list = Json::array();
    for (const Member& member : members) {
        Json entry = {{"name", member.name}, {"type", type_name(member.schema)}};
        if (member.presence == Presence::Optional) entry["default"] = nullptr;
        list.push_back(std::move(entry));
    }
    return numbered({{"meta-type", "object"}, {"members", std::move(list)}});
}

std::string Introspection::builtin(std::string_view name) {
    return named(std::string(name), {{"meta-type", "builtin"}, {"json-type", json_type(name)}});
}

std::string Introspection::numbered(Json entity) {
    std::string text = entity.dump();
    const auto found = names_.find(text);
    if (found != names_.end()) return found->second;
    const std::string name = std::to_string(names_.size());
    names_.emplace(std::move(text), name);
    entity["name"] = name;
    entities_.push_back(std::move(entity));
    return name;
}

std::string Introspection::named(const std::string& name, Json entity) {
    // Its own name stands for its text, which no other entity's can be.
    if (names_.emplace(name, name).second) {
        entity["name"] = name;
        entities_.push_back(std::move(entity));
    }
    return name;
}

Json introspect(const CommandTable& table) {
    Introspection schema;
    schema.command({.name = "qmp_capabilities",
                    .arguments = {{"enable", Schema::array_of(Schema::enumeration({"oob"})),
                                   Presence::Optional}},
                    .handler = nullptr});
    for (const auto& [name, command] : table.all()) schema.command(command);
    for (const EventShape& event : event_shapes()) schema.event(event);
    return std::move(schema).take();
}

}  // namespace

void add_schema_command(CommandTable& table) {
    table.add({.name = "query-qmp-schema",
               .arguments = {},
               .handler = [&table](const Invocation&,
                                   Reply reply) { std::move(reply).ok(introspect(table)); },
               .returns = Schema::array_of({JsonType::Object})});
}

}  // namespace ferry::monitor
