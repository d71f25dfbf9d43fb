// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/qom.h"

#include <fmt/format.h>

#include <algorithm>

#include "monitor/schema.h"
#include "system/vmm/devices.h"
#include "system/vmm/machine-types.h"
#include "system/vmm/objects.h"
#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::Json;
using monitor::JsonType;

QomProperty text(std::string name, std::string value) {
    return {std::move(name), "str", std::move(value)};
}
QomProperty flag(std::string name, bool value) {
    return {std::move(name), "bool", value};
}
QomProperty size(std::string name, uint64_t value) {
    return {std::move(name), "size", value};
}
QomProperty at_start(QomProperty property) {
    property.fixed = QomProperty::Fixed::AtStart;
    return property;
}
QomProperty on_off_auto(std::string name, vfio::OnOffAuto value) {
    return {std::move(name), "OnOffAuto", to_string(value)};
}

// The tree while it grows: each node is entered into its parent as a child.
class Tree {
 public:
    void add(QomNode node) {
        const size_t slash = node.path.rfind('/');
        const std::string parent = slash == 0 ? "/" : node.path.substr(0, slash);
        if (node.path != "/") {
            const auto found = std::ranges::find(nodes_, parent, &QomNode::path);
            found->properties.push_back(
                {std::string(node.name()), fmt::format("child<{}>", node.type), node.path});
        }
        node.properties.insert(node.properties.begin(), text("type", node.type));
        nodes_.push_back(std::move(node));
    }
    std::vector<QomNode> take() && { return std::move(nodes_); }

 private:
    std::vector<QomNode> nodes_;
};

Result<> expect(const Json& value, JsonType type, const std::string& name) {
    return monitor::check_members({{name, {type}}}, Json{{name, value}}, "");
}

QomProperty multifd_transfer(Vm& vm, const DeviceInfo& device) {
    const std::string name = "x-migration-multifd-transfer";
    QomProperty property = on_off_auto(name, device.properties.multifd_transfer);
    property.set = [&vm, name, path = device.qom_path](const Json& value) -> Result<> {
        MIG_CHECK(expect(value, JsonType::String, name));
        const auto wanted = on_off_auto_from_text(value.get<std::string>());
        if (!wanted) {
            return make_error(ErrorKind::InvalidArgument,
                              "Parameter '{}' does not accept value '{}'", name,
                              value.get<std::string>());
        }
        return vm.devices().set_multifd_transfer(path, *wanted);
    };
    return property;
}

// What every VFIO device has, and then what was written for this one.
std::vector<QomProperty> device_properties(Vm& vm, const DeviceInfo& device) {
    const vfio::VfioProperties& vfio = device.properties;
    std::vector<QomProperty> list;
    list.push_back(flag("realized", true));
    list.push_back(flag("hotpluggable", true));
    list.push_back(flag("hotplugged", device.plugged == DeviceInfo::Plugged::Later));
    const auto fixed = [&list](QomProperty property) {
        list.push_back(at_start(std::move(property)));
    };
    fixed(text("addr", fmt::format("{:02x}.{:x}", device.address.device, device.address.function)));
    fixed(on_off_auto("enable-migration", vfio.enable_migration));
    fixed(on_off_auto("x-pre-copy-dirty-page-tracking", vfio.pre_copy_dirty_page_tracking));
    fixed(on_off_auto("x-device-dirty-page-tracking", vfio.device_dirty_page_tracking));
    fixed(flag("migration-events", vfio.migration_events));
    fixed(flag("skip-vsc-check", vfio.skip_vsc_check));
    list.back().other_name = "x-skip-vsc-check";
    fixed(on_off_auto("x-migration-load-config-after-iter", vfio.load_config_after_iter));
    fixed(size("x-migration-max-queued-buffers-size", vfio.max_queued_buffers_size));
    list.push_back(multifd_transfer(vm, device));
    for (const SubOptions::Pair& pair : device.given) {
        const bool known =
            pair.key == "id" || std::ranges::any_of(list, [&](const QomProperty& one) {
                return one.is_called(pair.key);
            });
        if (!known) fixed(text(pair.key, pair.value));
    }
    return list;
}

void add_machine(Tree& tree, Vm& vm) {
    const Options& options = vm.options();
    tree.add({.path = "/machine",
              .type = fmt::format("{}-machine", machine_info(options.machine).name),
              .properties = {at_start(text("memory-backend", options.memory_backend))}});
    for (const char* part : {"peripheral", "peripheral-anon", "unattached"}) {
        tree.add({.path = fmt::format("/machine/{}", part), .type = "container", .properties = {}});
    }
    for (const Platform::Object& object : vm.platform_objects()) {
        tree.add({.path = object.path, .type = object.type, .properties = {}});
    }
    for (const DeviceInfo* device : vm.devices().all()) {
        tree.add({.path = device->qom_path,
                  .type = device->driver,
                  .properties = device_properties(vm, *device)});
    }
}

QomNode backend_node(const BackendInfo& backend) {
    QomNode node{.path = "/objects/" + backend.options.id, .type = backend.type, .properties = {}};
    node.properties.push_back(at_start({"size", "int", backend.options.size}));
    node.properties.push_back(at_start(flag("share", true)));
    if (backend.options.kind == BackendOptions::Kind::File) {
        node.properties.push_back(at_start(text("mem-path", backend.options.path)));
    }
    return node;
}

QomNode iommufd_node(const vfio::IommufdHost& iommufd) {
    return {.path = "/objects/" + iommufd.id(), .type = "iommufd", .properties = {}};
}

QomNode workload_node(qtest::Workload& workload) {
    const qtest::WorkloadState state = workload.state();
    QomProperty rate{"pages-per-second", "uint64", state.pages_per_second};
    rate.set = [&workload](const Json& value) -> Result<> {
        MIG_CHECK(expect(value, JsonType::Uint64, "pages-per-second"));
        return workload.set_pages_per_second(monitor::to_uint64(value));
    };
    return {.path = "/objects/" + workload.id(),
            .type = "ferry-workload",
            .properties = {std::move(rate),
                           {"position", "uint64", state.position},
                           at_start({"working-set", "uint64", state.working_set}),
                           at_start({"offset", "uint64", state.offset}),
                           at_start({"seed", "uint64", state.seed})}};
}

}  // namespace

std::string_view QomNode::name() const {
    return std::string_view(path).substr(path.rfind('/') + 1);
}

std::vector<QomNode> qom_tree(Vm& vm, Objects& objects) {
    Tree tree;
    tree.add({.path = "/", .type = "container", .properties = {}});
    add_machine(tree, vm);
    tree.add({.path = "/objects", .type = "container", .properties = {}});
    for (const BackendInfo& backend : objects.backends()) tree.add(backend_node(backend));
    for (const vfio::IommufdHost* one : objects.iommufds()) tree.add(iommufd_node(*one));
    for (qtest::Workload* workload : vm.workloads().all()) tree.add(workload_node(*workload));
    return std::move(tree).take();
}

QomFound qom_find(const std::vector<QomNode>& tree, std::string_view path) {
    while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
    const std::string tail = "/" + std::string(path);
    QomFound found;
    for (const QomNode& node : tree) {
        const bool absolute = path.starts_with('/');
        if (absolute ? node.path != path : !node.path.ends_with(tail) || path.empty()) continue;
        if (found.node != nullptr) return {QomLookup::Ambiguous, nullptr};
        found = {QomLookup::Found, &node};
    }
    return found;
}

}  // namespace ferry::vmm
