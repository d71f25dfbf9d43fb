// SPDX-License-Identifier: BSD-2-Clause
// HMP's commands about devices, objects and the dirty rate. The QMP commands that they run belong
// to the hypervisor; one that has none of them answers so.
#include <optional>
#include <string>
#include <utility>

#include "monitor/hmp.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

using Kind = HmpParameter::Kind;

std::string silent(const Json& /*answer*/) {
    return "";
}

// "type,key=value,...", ",," being a comma, as the members of an object. What stands first without
// '=' belongs to `first_key`; a key alone is a switch that is on.
Json members_from_text(const std::string& text, std::string_view first_key) {
    Json members = Json::object();
    std::string part;
    const auto take = [&] {
        const size_t equals = part.find('=');
        const bool named = equals != std::string::npos;
        if (!named && members.empty()) {
            members[std::string(first_key)] = part;
        } else {
            members[part.substr(0, equals)] = named ? part.substr(equals + 1) : "on";
        }
        part.clear();
    };
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            part += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            part += text[++i];
        } else {
            take();
        }
    }
    if (!part.empty()) take();
    return members;
}

// Objects want JSON's own kinds. Names and paths stay texts, whatever they look like.
void use_json_kinds(Json& members) {
    for (auto& [name, value] : members.items()) {
        if (name == "qom-type" || name == "id" || name.ends_with("path")) continue;
        const auto text = value.get<std::string>();
        if (text == "on" || text == "off") {
            value = text == "on";
        } else if (const auto size = size_from_text(text, 1)) {
            value = *size;
        }
    }
}

// A number or a switch in JSON's spelling, or just text.
Json value_from_text(const std::string& text) {
    auto json = parse_json(text);
    return json && !json->is_structured() ? std::move(*json) : Json(text);
}

Json number(const std::string& digits) {
    return std::stoll(digits);  // has been checked to be one
}

}  // namespace

void Hmp::add_device_commands() {
    add({"device_add",
         "",
         {{Kind::Word, "device"}},
         "driver[,prop=value][,...]",
         "add a device",
         [this](HmpCall call) {
             const Json members = members_from_text(call.arguments["device"], "driver");
             run_qmp("device_add", members, std::move(call), silent);
         }});
    add({"device_del", "", {{Kind::Word, "id"}}, "device", "remove a device", [this](HmpCall call) {
             const Json arguments = {{"id", call.arguments["id"]}};
             run_qmp("device_del", arguments, std::move(call), silent);
         }});
}

void Hmp::add_object_commands() {
    add({"object_add",
         "",
         {{Kind::Word, "object"}},
         "[qom-type=]type,id=str[,prop=value][,...]",
         "create an object",
         [this](HmpCall call) {
             Json members = members_from_text(call.arguments["object"], "qom-type");
             use_json_kinds(members);
             run_qmp("object-add", members, std::move(call), silent);
         }});
    add({"object_del", "", {{Kind::Word, "id"}}, "id", "destroy an object", [this](HmpCall call) {
             const Json arguments = {{"id", call.arguments["id"]}};
             run_qmp("object-del", arguments, std::move(call), silent);
         }});
    add({"qom-list",
         "",
         {{Kind::OptionalWord, "path"}},
         "path",
         "list an object's properties",
         [this](HmpCall call) {
             if (!call.arguments.contains("path")) return call.done("/\n");
             const Json arguments = {{"path", call.arguments["path"]}};
             run_qmp("qom-list", arguments, std::move(call), [](const Json& properties) {
                 std::string out;
                 for (const Json& property : properties) {
                     out += fmt::format("{} ({})\n", property["name"].get<std::string>(),
                                        property["type"].get<std::string>());
                 }
                 return out;
             });
         }});
    add({"qom-get",
         "",
         {{Kind::Word, "path"}, {Kind::Word, "property"}},
         "path property",
         "show a property of an object",
         [this](HmpCall call) {
             const Json arguments = {{"path", call.arguments["path"]},
                                     {"property", call.arguments["property"]}};
             run_qmp("qom-get", arguments, std::move(call),
                     [](const Json& value) { return to_text(value, Layout::Pretty) + "\n"; });
         }});
    add({"qom-set",
         "",
         {{Kind::Word, "path"}, {Kind::Word, "property"}, {Kind::Word, "value"}},
         "path property value",
         "change a property of an object",
         [this](HmpCall call) {
             const Json arguments = {{"path", call.arguments["path"]},
                                     {"property", call.arguments["property"]},
                                     {"value", value_from_text(call.arguments["value"])}};
             run_qmp("qom-set", arguments, std::move(call), silent);
         }});
}

void Hmp::add_dirty_rate_commands() {
    add({"calc_dirty_rate",
         "",
         {{Kind::Flag, "r"},
          {Kind::Flag, "b"},
          {Kind::Number, "second"},
          {Kind::OptionalNumber, "samples"}},
         "[-r] [-b] second [sample_pages_per_GB]",
         "measure how fast memory gets dirty (-r: by dirty ring, -b: by dirty bitmap)",
         [this](HmpCall call) {
             const bool ring = call.arguments.contains("r");
             const bool bitmap = call.arguments.contains("b");
             if (ring && bitmap) {
                 return call.done("Either dirty ring or dirty bitmap can be specified!\n");
             }
             const std::string seconds = call.arguments["second"];
             Json arguments = {{"calc-time", number(seconds)}};
             if (ring || bitmap) arguments["mode"] = ring ? "dirty-ring" : "dirty-bitmap";
             if (call.arguments.contains("samples")) {
                 arguments["sample-pages"] = number(call.arguments["samples"]);
             }
             run_qmp("calc-dirty-rate", arguments, std::move(call), [seconds](const Json&) {
                 return fmt::format(
                     "Starting dirty rate measurement with period {} seconds\n"
                     "[Please use 'info dirty_rate' to check results]\n",
                     seconds);
             });
         }});
    add({"set_vcpu_dirty_limit",
         "",
         {{Kind::Number, "rate"}, {Kind::OptionalNumber, "cpu"}},
         "dirty_rate [cpu_index]",
         "limit how fast CPUs dirty memory (MB/s)",
         [this](HmpCall call) {
             Json arguments = {{"dirty-rate", number(call.arguments["rate"])}};
             if (call.arguments.contains("cpu")) {
                 arguments["cpu-index"] = number(call.arguments["cpu"]);
             }
             run_qmp("set-vcpu-dirty-limit", arguments, std::move(call), silent);
         }});
    add({"cancel_vcpu_dirty_limit",
         "",
         {{Kind::OptionalNumber, "cpu"}},
         "[cpu_index]",
         "take such a limit back",
         [this](HmpCall call) {
             Json arguments = Json::object();
             if (call.arguments.contains("cpu")) {
                 arguments["cpu-index"] = number(call.arguments["cpu"]);
             }
             run_qmp("cancel-vcpu-dirty-limit", arguments, std::move(call), silent);
         }});
}

void Hmp::add_machine_infos() {
    query("kvm", "show whether KVM executes the guest", "query-kvm", kvm_text);
    query("cpus", "show the CPUs", "query-cpus-fast", cpus_text);
    query("pci", "show the PCI bus", "query-pci", pci_text);
    query("memdev", "show the memory backends", "query-memdev", memdev_text);
    query("dirty_rate", "show the dirty rate", "query-dirty-rate", dirty_rate_text);
    query("vcpu_dirty_limit", "show the CPUs' limits", "query-vcpu-dirty-limit", dirty_limit_text);
}

}  // namespace ferry::monitor
