// SPDX-License-Identifier: BSD-2-Clause
// query-qmp-schema: what commands take and give and which events there are, as entities that refer
// to each other by name. Types that a client is not to rely on by name are numbered.
#include <algorithm>
#include <map>
#include <utility>

#include "monitor/answers.h"
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
        case JsonType::Number: return "number";
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
    if (builtin == "number") return "number";
    if (builtin == "null") return "null";
    return "value";
}

// Into the entity or member of this name, if there is something to say.
void add_features(Json& out, std::string_view name, Stability stability) {
    if (stability == Stability::Deprecated) {
        out["features"] = Json::array({"deprecated"});
    } else if (stability == Stability::Unstable || name.starts_with("x-")) {
        out["features"] = Json::array({"unstable"});
    }
}

class Introspection {
 public:
    void command(const Command& command) {
        Json entity = {{"name", command.name},
                       {"meta-type", "command"},
                       {"arg-type", object_type(Schema::object(command.arguments))},
                       {"ret-type", type_name(command.returns)}};
        if (command.out_of_band == OutOfBand::Yes) entity["allow-oob"] = true;
        add_features(entity, command.name, command.stability);
        entities_.push_back(std::move(entity));
    }
    void event(const EventShape& event) {
        entities_.push_back({{"name", event.name},
                             {"meta-type", "event"},
                             {"arg-type", object_type(Schema::object(event.data))}});
    }
    Json take() && { return std::move(entities_); }

 private:
    // The name of the type's entity, which is added when it is new.
    std::string type_name(const Schema& schema);
    std::string object_type(const Schema& schema);
    Json member(const Member& member);
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
            for (const std::string& value : schema.values) {
                const bool old = std::ranges::count(schema.deprecated, value) != 0;
                Json& entry = members.emplace_back(Json{{"name", value}});
                add_features(entry, value, old ? Stability::Deprecated : Stability::Stable);
            }
            return numbered(
                {{"meta-type", "enum"}, {"members", members}, {"values", schema.values}});
        }
        case JsonType::Object: return object_type(schema);
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
        case JsonType::Uint64:
        case JsonType::Number: return builtin(builtin_name(schema.type));
    }
    return builtin("any");
}

Json Introspection::member(const Member& member) {
    Json entry = {{"name", member.name}, {"type", type_name(member.schema)}};
    if (member.presence == Presence::Optional) entry["default"] = nullptr;
    add_features(entry, member.name, member.stability);
    return entry;
}

std::string Introspection::object_type(const Schema& schema) {
    Json entity = {{"meta-type", "object"}, {"members", Json::array()}};
    for (const Member& each : schema.members) entity["members"].push_back(member(each));
    if (!schema.variants.empty()) {
        Schema tags = Schema::enumeration({});
        entity["variants"] = Json::array();
        for (const Variant& variant : schema.variants) {
            tags.values.push_back(variant.value);
            entity["variants"].push_back(
                {{"case", variant.value}, {"type", object_type(variant.object)}});
        }
        entity["tag"] = schema.tag;
        entity["members"].push_back(member({schema.tag, tags}));
    }
    return numbered(std::move(entity));
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
               .returns = Schema::array_of(schema_entity())});
}

}  // namespace ferry::monitor
