// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/platform.h"

#include <fmt/format.h>

#include <array>

#include "util/try.h"

namespace ferry::vmm {

namespace {

// The PM timer wraps every few seconds; its interrupt may be late by so much.
constexpr auto kTimerPoll = std::chrono::milliseconds(50);

struct SerialPlace {
    uint16_t port;
    unsigned line;
};
constexpr std::array kSerialPlaces = {
    SerialPlace{chardev::Serial::kCom1, 4}, SerialPlace{chardev::Serial::kCom2, 3},
    SerialPlace{chardev::Serial::kCom3, 4}, SerialPlace{chardev::Serial::kCom4, 3}};
static_assert(kSerialPlaces.size() == kMaxSerials);

// In the object tree.
constexpr const char* kPmPath = "/machine/unattached/pm";

acpi::Chipset chipset_of(MachineType machine) {
    return machine == MachineType::Q35 ? acpi::Chipset::Ich9 : acpi::Chipset::Piix4;
}

}  // namespace

std::function<void()> Platform::request(GuestRequest what) const {
    return [&requests = requests_, what] { requests.request(what); };
}

acpi::PmActions Platform::pm_actions() {
    return {.power_off = request(GuestRequest::PowerOff),
            .suspend = request(GuestRequest::Suspend),
            .hibernate = request(GuestRequest::PowerOff),
            .timer_changed = [&loop = loop_, self = std::weak_ptr(self_)] {
                loop.post([self] {
                    if (const auto alive = self.lock()) (*alive)->watch_timer();
                });
            }};
}

Platform::Platform(const Parts& parts, const Config& config)
    : loop_(parts.loop),
      requests_(parts.requests),
      clock_(parts.base_clock, parts.clock, parts.passing),
      // Address line 20 is always open: KVM's CPUs have no gate for it.
      port92_({.reset = request(GuestRequest::Reset), .set_a20 = {}}),
      i8042_({.reset = request(GuestRequest::Reset), .set_a20 = {}}),
      reset_control_(request(GuestRequest::Reset)),
      rtc_(isa::host_wall_clock, config.memory),
      pm_(
          chipset_of(config.machine), [this] { return clock_.now(); },
          parts.lines.connect(kPmPath, 0, acpi::Pm::kSciGsi), pm_actions()),
      passing_(parts.passing) {}

Result<std::unique_ptr<Platform>> Platform::create(const Parts& parts, const Config& config) {
    std::unique_ptr<Platform> platform(new Platform(parts, config));
    MIG_CHECK(platform->set_up(parts), "platform devices");
    for (size_t i = 0; i < config.serials.size(); ++i) {
        MIG_CHECK(platform->add_serial(parts, i, config.serials[i]), "-serial");
    }
    return platform;
}

Result<> Platform::claim(isa::PortBus& ports, uint16_t first, uint32_t count,
                         isa::PortDevice& device) {
    MIG_TRY(auto claimed, ports.claim(first, count, device));
    registrations_.push_back(std::move(claimed));
    return {};
}

template <typename Device>
Result<> Platform::add_section(migration::SaveVMRegistry& registry, Device& device,
                               uint32_t instance) {
    MIG_TRY(auto added, registry.add_vmstate("", device.vmstate(), &device.state(), instance));
    registrations_.push_back(std::move(added));
    return {};
}

Result<> Platform::set_up(const Parts& parts) {
    MIG_CHECK(claim(parts.ports, isa::Port92::kPort, isa::Port92::kCount, port92_));
    MIG_CHECK(claim(parts.ports, isa::I8042::kPort, isa::I8042::kCount, i8042_));
    MIG_CHECK(
        claim(parts.ports, acpi::ResetControl::kPort, acpi::ResetControl::kCount, reset_control_));
    MIG_CHECK(claim(parts.ports, isa::Rtc::kPort, isa::Rtc::kCount, rtc_));
    MIG_CHECK(claim(parts.ports, acpi::Pm::kPort, acpi::Pm::kCount, pm_));
    MIG_CHECK(claim(parts.ports, acpi::Pm::kSmiPort, acpi::Pm::kSmiCount, pm_.smi_command()));
    MIG_CHECK(add_section(parts.registry, port92_, 0));
    MIG_CHECK(add_section(parts.registry, i8042_, 0));
    MIG_CHECK(add_section(parts.registry, reset_control_, 0));
    MIG_CHECK(add_section(parts.registry, rtc_, 0));
    MIG_CHECK(add_section(parts.registry, pm_, 0));
    MIG_CHECK(add_section(parts.registry, requests_, 0));
    registrations_.push_back(parts.runstate.add_handler(*this));
    if (passing_ == RunningClock::Passing::ByTest) {
        registrations_.push_back(parts.base_clock.add_timer(pm_timer_));
    }
    return {};
}

Result<> Platform::add_serial(const Parts& parts, size_t index, const SerialOptions& options) {
    if (!options.address) return {};
    const SerialPlace place = kSerialPlaces.at(index);
    SerialPort port{.path = fmt::format("/machine/unattached/serial{}", index)};
    MIG_TRY(port.backend, chardev::CharBackend::open(fmt::format("serial{}", index),
                                                     *options.address, &parts.log));
    port.device = std::make_unique<chardev::Serial>(*port.backend,
                                                    parts.lines.connect(port.path, 0, place.line));
    MIG_CHECK(claim(parts.ports, place.port, chardev::Serial::kCount, *port.device));
    MIG_CHECK(add_section(parts.registry, *port.device, static_cast<uint32_t>(index)));
    port.serving = port.backend->serve(*port.device);
    serials_.push_back(std::move(port));
    return {};
}

void Platform::vm_change(system::Pass, system::VmChange change, system::Done done) {
    if (change.direction == system::Direction::Start) {
        clock_.start();
        pm_.start();
        for (const SerialPort& port : serials_) port.device->start();
        watch_timer();
    } else {
        for (const SerialPort& port : serials_) port.device->stop();
        clock_.stop();
        timer_ = {};
    }
    done({});
}

std::vector<Platform::Object> Platform::objects() const {
    std::vector<Object> list = {{InterruptLines::kControllerPath, "ioapic"},
                                {kPmPath, "ferry-acpi-pm"}};
    for (const SerialPort& port : serials_) list.push_back({port.path, "isa-serial"});
    return list;
}

void Platform::reset() {
    port92_.reset();
    i8042_.reset();
    reset_control_.reset();
    rtc_.reset();
    pm_.reset();
    for (const SerialPort& port : serials_) port.device->reset();
}

std::optional<int64_t> Platform::PmTimer::deadline() {
    const auto due = pm_.timer_deadline();
    return due ? std::optional(due->count()) : std::nullopt;
}

void Platform::watch_timer() {
    const bool by_itself = passing_ == RunningClock::Passing::ByItself;
    if (!by_itself || !pm_.timer_deadline()) {
        timer_ = {};
        return;
    }
    timer_ = loop_.every(kTimerPoll, [this] { pm_.poll_timer(); });
}

}  // namespace ferry::vmm
