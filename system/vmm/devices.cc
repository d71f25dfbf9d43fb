// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "hw/test-device.h"
#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/device-io-observed.h"
#include "hw/vfio/device-io-soft.h"
#include "system/vmm/gathering.h"
#include "system/vmm/inherited-fds.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr std::string_view kKernelDevice = "vfio-pci";
constexpr std::string_view kSoftDevice = "vfio-pci-soft";
constexpr uint8_t kFirstAutoSlot = 1;  // the host bridge has slot 0

constexpr std::string_view kCommonHelp =
    "  id=<string>            for device_del, events and messages\n"
    "  addr=<slot>[.<fn>]     hexadecimal; default: the first free slot\n"
    "  enable-migration=<on/off/auto>\n"
    "                         on: refuse a device that can't migrate; default auto\n"
    "  x-pre-copy-dirty-page-tracking=<on/off>\n"
    "                         off: all RAM goes again in the last pass; default on\n"
    "  x-device-dirty-page-tracking=<on/off>\n"
    "                         off: do not ask the device what it wrote; default on\n"
    "  x-migration-multifd-transfer=<on/off/auto>\n"
    "                         its state over the channels of multifd; auto: where there are any\n"
    "  x-migration-load-config-after-iter=<on/off/auto>\n"
    "                         tell the destination when to load its configuration, as QEMU on Arm\n"
    "                         does; the same on both sides; auto: off\n"
    "  x-migration-max-queued-buffers-size=<size>\n"
    "                         of its state that waits to be loaded; 64M for all devices together\n"
    "  migration-events=<bool>  VFIO_MIGRATION events; default off\n"
    "  skip-vsc-check=<bool>\n"
    "                         off: vendor capabilities must be equal; default on\n";
constexpr std::string_view kKernelHelp =
    "  host=<string>          PCI address on the host, [DOMAIN:]BUS:SLOT.FN; or\n"
    "  sysfsdev=<string>      the device's folder below /sys\n"
    "  iommufd=<id>           open the device's own node and use -object iommufd,id=<id>\n"
    "  fd=<n>                 with iommufd=, instead of host=: the device's open node\n"
    "  x-fault=<script>       calls of the driver that fail or are held, for tests\n";

Result<vfio::OnOffAuto> take_on_off_auto(SubOptions& properties, std::string_view key,
                                         vfio::OnOffAuto fallback) {
    const auto text = properties.take(key);
    if (!text) return fallback;
    MIG_TRY(const auto value, on_off_auto_from_text(*text), "{}: {}", properties.context(), key);
    return value;
}

Result<vfio::VfioProperties> take_vfio_properties(SubOptions& from) {
    vfio::VfioProperties to;
    MIG_TRY(to.enable_migration, take_on_off_auto(from, "enable-migration", to.enable_migration));
    MIG_TRY(
        to.pre_copy_dirty_page_tracking,
        take_on_off_auto(from, "x-pre-copy-dirty-page-tracking", to.pre_copy_dirty_page_tracking));
    MIG_TRY(to.device_dirty_page_tracking,
            take_on_off_auto(from, "x-device-dirty-page-tracking", to.device_dirty_page_tracking));
    MIG_TRY(to.multifd_transfer,
            take_on_off_auto(from, "x-migration-multifd-transfer", to.multifd_transfer));
    MIG_TRY(to.load_config_after_iter, take_on_off_auto(from, "x-migration-load-config-after-iter",
                                                        to.load_config_after_iter));
    MIG_TRY(const auto queued, from.take_size("x-migration-max-queued-buffers-size"));
    to.max_queued_buffers_size = queued.value_or(to.max_queued_buffers_size);
    MIG_TRY(const auto events, from.take_switch("migration-events"));
    if (events != Switch::Unset) to.migration_events = events == Switch::On;
    for (const std::string_view key : {"x-skip-vsc-check", "skip-vsc-check"}) {
        MIG_TRY(const auto skip, from.take_switch(key));
        if (skip != Switch::Unset) to.skip_vsc_check = skip == Switch::On;
    }
    return to;
}

Error unknown_type(std::string_view driver) {
    return make_error(ErrorKind::Unsupported,
                      "-device {}: not a valid device model name (see -device help)", driver);
}

}  // namespace

std::string_view to_string(vfio::OnOffAuto value) {
    switch (value) {
        case vfio::OnOffAuto::Auto: return "auto";
        case vfio::OnOffAuto::On: return "on";
        case vfio::OnOffAuto::Off: return "off";
    }
    return "auto";
}

Result<vfio::OnOffAuto> on_off_auto_from_text(std::string_view text) {
    if (text == "auto") return vfio::OnOffAuto::Auto;
    MIG_TRY(const bool on, parse_bool(text));
    return on ? vfio::OnOffAuto::On : vfio::OnOffAuto::Off;
}

Result<> check_device_type(std::string_view driver) {
    if (driver == kKernelDevice || driver == kSoftDevice) return {};
    return unknown_type(driver);
}

Result<std::string> device_help(std::string_view driver) {
    if (driver == "help") {
        return fmt::format(
            "name \"{}\", bus PCI, desc \"VFIO device of the host\"\n"
            "name \"{}\", bus PCI, desc \"software device that migrates\"\n",
            kKernelDevice, kSoftDevice);
    }
    MIG_CHECK(check_device_type(driver));
    std::string text = fmt::format("{} options:\n", driver);
    if (driver == kKernelDevice) text += kKernelHelp;
    text += kCommonHelp;
    if (driver == kSoftDevice) {
        for (const auto& property : hw::TestDeviceConfig::property_help()) {
            text +=
                fmt::format("  {:<22} {}\n", fmt::format("{}=<{}>", property.name, property.value),
                            property.help);
        }
    }
    return text;
}

struct Devices::Device {
    std::string id;
    DeviceInfo info;
    hw::TestDevice* model = nullptr;             // soft devices; belongs to `pci`
    std::shared_ptr<vfio::FaultControl> faults;  // null: nothing stands in between
    std::unique_ptr<vfio::VfioPciDevice> pci;

    static Device* find(const std::vector<std::unique_ptr<Device>>& among, std::string_view id) {
        for (const auto& device : among) {
            if (!id.empty() && device->id == id) return device.get();
        }
        return nullptr;
    }

    // Its destruction must not wait for what only a test would end.
    void let_go() {
        if (faults) faults->release();
        if (model != nullptr) model->stop_waiting();
    }
};

Devices::Devices(vfio::VfioVm vm, Board& board, MachineType machine)
    : vm_(std::move(vm)),
      board_(board),
      machine_(machine),
      kernel_host_(kernel_, board.memory()),
      iommufds_(kernel_, board.memory()),
      soft_container_("soft") {}

Devices::~Devices() {
    for (const auto& device : devices_) device->let_go();
}

Devices::Device* Devices::find(std::string_view id) const {
    return Device::find(devices_, id);
}

Devices::Device* Devices::find_arriving(std::string_view id) const {
    return Device::find(arriving_, id);
}

Result<> Devices::set_multifd_transfer(std::string_view qom_path, vfio::OnOffAuto value) {
    for (const auto& device : devices_) {
        if (device->info.qom_path != qom_path) continue;
        device->info.properties.multifd_transfer = value;
        device->pci->set_multifd_transfer(value);
        return {};
    }
    return make_error(ErrorKind::InvalidArgument, "Device '{}' not found", qom_path);
}

std::vector<const DeviceInfo*> Devices::all() const {
    std::vector<const DeviceInfo*> infos;
    for (const auto& device : devices_) infos.push_back(&device->info);
    return infos;
}

// A device that its options allow; no driver has been called for it.
struct Devices::Plan {
    std::unique_ptr<Device> device;
    vfio::VfioPciDevice::Request request;
};

Result<pci::PciAddress> Devices::free_address() const {
    uint8_t from = kFirstAutoSlot;
    for (;;) {
        MIG_TRY(const pci::PciAddress free, board_.bus()->first_free(from));
        if (std::ranges::none_of(
                arriving_, [free](const auto& device) { return device->info.address == free; })) {
            return free;
        }
        from = static_cast<uint8_t>(free.device + 1);
    }
}

Result<Devices::Plan> Devices::plan(const DeviceOptions& options) {
    SubOptions properties = options.properties;
    const std::string context = properties.context();
    if (board_.bus() == nullptr) {
        return make_error(ErrorKind::InvalidArgument, "{}: No 'PCI' bus found for device '{}'",
                          context, options.driver);
    }
    auto device = std::make_unique<Device>();
    DeviceInfo& info = device->info;
    info.driver = options.driver;
    info.given = SubOptions(properties).take_rest();
    device->id = properties.take("id").value_or("");
    if (find(device->id) != nullptr || find_arriving(device->id) != nullptr) {
        return make_error(ErrorKind::InvalidArgument, "{}: Duplicate device ID '{}'", context,
                          device->id);
    }
    if (const auto text = properties.take("addr")) {
        MIG_TRY(info.address, pci::PciAddress::parse(*text), "{}: addr", context);
    } else {
        MIG_TRY(info.address, free_address(), "{}", context);
    }
    MIG_TRY(info.properties, take_vfio_properties(properties));
    properties.set_context(options.driver);  // what follows names the whole option itself
    if (const auto script = properties.take("x-fault")) {
        MIG_TRY(device->faults, vfio::FaultControl::parse(*script), "{}: x-fault", context);
    }
    info.id = device->id;
    info.qom_path = device->id.empty()
                        ? fmt::format("/machine/peripheral-anon/device[{}]", anonymous_++)
                        : "/machine/peripheral/" + device->id;
    vfio::VfioIdentity identity{
        .id = info.id, .path = info.address.path(), .qom_path = info.qom_path};
    const bool kernel = options.driver == kKernelDevice;
    auto open =
        kernel ? plan_kernel(properties, options.fd) : plan_soft(*device, properties, identity);
    if (!open) return std::move(open).error().context(context);
    auto wrapped = [open = std::move(*open), faults = device->faults, &env = vm_.env,
                    label =
                        identity.label()]() mutable -> Result<std::unique_ptr<vfio::VfioDeviceIo>> {
        MIG_TRY(std::unique_ptr<vfio::VfioDeviceIo> io, open());
        if (faults) {
            io = std::make_unique<vfio::FaultyDeviceIo>(std::move(io), faults, env, label);
        }
        return std::make_unique<vfio::ObservedDeviceIo>(std::move(io), env, label);
    };
    vfio::MsiSink sink{
        .message = [this](uint64_t at, uint32_t data) { board_.msi_write(at, data); },
        .pin = wire_pins(info.qom_path, info.address),
        .input = [machine = machine_, address = info.address](
                     unsigned pin) { return pci_interrupt_line(machine, address, pin); }};
    vfio::VfioPciDevice::Request request{.vm = vm_,
                                         .bus = *board_.bus(),
                                         .address = info.address,
                                         .identity = std::move(identity),
                                         .properties = info.properties,
                                         .sink = std::move(sink),
                                         .open = std::move(wrapped)};
    return Plan{std::move(device), std::move(request)};
}

Result<> Devices::create(const DeviceOptions& options) {
    MIG_TRY(Plan planned, plan(options));
    Device& device = *planned.device;
    arriving_.push_back(std::move(planned.device));
    Result<> result;
    arrived(device, options.properties.context(),
            vfio::VfioPciDevice::realize(std::move(planned.request)),
            [&result](Result<> outcome) { result = std::move(outcome); });
    return result;
}

void Devices::create_later(const DeviceOptions& options, vfio::VfioPciDevice::Admit admit,
                           system::Done done) {
    auto planned = plan(options);
    if (!planned) return done(std::move(planned).error());
    Device& device = *planned->device;
    device.info.plugged = DeviceInfo::Plugged::Later;
    arriving_.push_back(std::move(planned->device));
    vfio::VfioPciDevice::realize_async(std::move(planned->request), std::move(admit),
                                       [this, &device, context = options.properties.context(),
                                        done = std::move(done)](auto realized) mutable {
                                           arrived(device, context, std::move(realized),
                                                   std::move(done));
                                       });
}

void Devices::arrived(Device& device, const std::string& context,
                      Result<std::unique_ptr<vfio::VfioPciDevice>> realized, system::Done done) {
    const auto at = std::ranges::find(arriving_, &device, &std::unique_ptr<Device>::get);
    std::unique_ptr<Device> owned = std::move(*at);
    arriving_.erase(at);
    if (!realized) return done(std::move(realized).error().context(context));
    owned->pci = std::move(*realized);
    owned->info.bar_bytes = owned->pci->bar_bytes();
    devices_.push_back(std::move(owned));
    done({});
}

// By the device's own node instead of its group.
Result<Devices::Open> Devices::plan_node(SubOptions& properties, const std::string& iommufd,
                                         std::shared_ptr<UniqueFd> handed) {
    auto backend = iommufds_.find(iommufd);
    if (backend == nullptr) {
        return make_error(ErrorKind::InvalidArgument,
                          "iommufd={}: there is no such object; add -object iommufd,id={}", iommufd,
                          iommufd);
    }
    const auto host = properties.take("host");
    const auto sysfsdev = properties.take("sysfsdev");
    const auto fd = properties.take("fd");
    if (host.has_value() + sysfsdev.has_value() + fd.has_value() != 1) {
        return make_error(ErrorKind::InvalidArgument,
                          "with iommufd= give one of host=, sysfsdev= and fd=");
    }
    MIG_CHECK(properties.finish());
    if (!fd) {
        return Open(
            [backend, place = host ? *host : *sysfsdev] { return backend->open_device(place); });
    }
    if (handed == nullptr) {
        MIG_TRY(UniqueFd inherited, take_inherited_fd(*fd), "fd={}", *fd);
        handed = std::make_shared<UniqueFd>(std::move(inherited));
    }
    return Open([this, backend, handed] {
        return backend->adopt_device(vfio::KernelFile(kernel_, BorrowedFd(handed->release())));
    });
}

Result<Devices::Open> Devices::plan_kernel(SubOptions& properties,
                                           std::shared_ptr<UniqueFd> handed) {
    if (const auto iommufd = properties.take("iommufd")) {
        return plan_node(properties, *iommufd, std::move(handed));
    }
    const auto host = properties.take("host");
    const auto sysfsdev = properties.take("sysfsdev");
    if (host.has_value() == sysfsdev.has_value()) {
        return make_error(ErrorKind::InvalidArgument,
                          "give either host= or sysfsdev=, or fd= with iommufd=");
    }
    // Nothing is opened for a command line that is wrong anyway.
    MIG_CHECK(properties.finish());
    return Open(
        [this, place = host ? *host : *sysfsdev] { return kernel_host_.open_device(place); });
}

Result<Devices::Open> Devices::plan_soft(Device& device, SubOptions& properties,
                                         const vfio::VfioIdentity& identity) {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (SubOptions::Pair& pair : properties.take_rest()) {
        pairs.emplace_back(std::move(pair.key), std::move(pair.value));
    }
    MIG_TRY(auto config, hw::TestDeviceConfig::parse(pairs));
    // Always in between, so that a test can disturb the device later.
    if (!device.faults) {
        MIG_TRY(device.faults, vfio::FaultControl::parse(config.faults));
    }
    if (!soft_mapped_) {
        MIG_CHECK(vfio::map_guest_memory(soft_container_, board_.memory()));
        soft_mapped_ = true;
    }
    MIG_TRY(auto model, hw::TestDevice::create(std::move(config), vm_.env, identity.label()));
    device.model = model.get();
    return Open(
        [this, model = std::move(model),
         label = identity.label()]() mutable -> Result<std::unique_ptr<vfio::VfioDeviceIo>> {
            return std::make_unique<vfio::SoftDeviceIo>(std::move(model), soft_container_, vm_.env,
                                                        label);
        });
}

std::function<void(unsigned, vfio::MsiSink::Level)> Devices::wire_pins(const std::string& qom_path,
                                                                       pci::PciAddress address) {
    constexpr unsigned kPins = 4;
    std::vector<isa::IrqLine> pins;
    for (unsigned pin = 1; pin <= kPins; ++pin) {
        pins.push_back(
            board_.lines().connect(qom_path, pin - 1, pci_interrupt_line(machine_, address, pin)));
    }
    return [pins = std::move(pins)](unsigned pin, vfio::MsiSink::Level level) {
        pins.at(pin - 1)(level == vfio::MsiSink::Level::High);
    };
}

void Devices::reset(system::Done done) {
    if (devices_.empty()) return done({});
    const auto gathering = std::make_shared<Gathering>(vm_.loop, devices_.size(), std::move(done));
    for (const auto& device : devices_) {
        device->pci->reset(
            [gathering](Result<> result) { gathering->part_done(std::move(result)); });
    }
}

void Devices::remove(std::string_view id, system::Done done) {
    Device* const device = find(id);
    if (device == nullptr) {
        return done(make_error(ErrorKind::InvalidArgument, "Device '{}' not found", id));
    }
    device->let_go();
    ++removing_;
    auto pci = std::move(device->pci);
    std::erase_if(devices_, [device](const auto& other) { return other.get() == device; });
    vfio::VfioPciDevice::unrealize(std::move(pci),
                                   [this, done = std::move(done)](Result<> result) mutable {
                                       --removing_;
                                       done(std::move(result));
                                   });
}

Result<> Devices::set_faults(std::string_view id, std::string_view script) {
    Device* device = find(id);
    if (device == nullptr) device = find_arriving(id);
    if (device == nullptr) {
        return make_error(ErrorKind::InvalidArgument, "Device '{}' not found", id);
    }
    if (!device->faults) {
        return make_error(ErrorKind::InvalidState,
                          "Device '{}' was created without x-fault, so nothing can disturb it", id);
    }
    return device->faults->apply(script);
}

}  // namespace ferry::vmm
