// SPDX-License-Identifier: BSD-2-Clause
// The devices that every PC has: serial ports, clock, keyboard controller, power management and the
// ports that reset it. See docs/devel/board-devices.rst.
#pragma once

#include <memory>
#include <vector>

#include "hw/acpi/pm.h"
#include "hw/acpi/reset-control.h"
#include "hw/char/char-backend.h"
#include "hw/char/serial.h"
#include "hw/isa/i8042.h"
#include "hw/isa/port-bus.h"
#include "hw/isa/port92.h"
#include "hw/isa/rtc.h"
#include "migration/savevm.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "system/vmm/guest-clock.h"
#include "system/vmm/guest-requests.h"
#include "system/vmm/interrupt-lines.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// Main loop thread; the devices' own methods run on the threads that access them.
class Platform final : public system::VmChangeHandler {
 public:
    struct Parts {  // all outlive the platform
        system::MainLoop& loop;
        isa::PortBus& ports;
        GuestRequests& requests;
        InterruptLines& lines;
        qtest::VirtualClock& base_clock;
        const util::Clock& clock;
        RunningClock::Passing passing;
        migration::SaveVMRegistry& registry;
        system::RunStateController& runstate;
        util::Logger& log;
    };
    struct Config {
        MachineType machine;
        isa::Rtc::Memory memory;
        std::vector<SerialOptions> serials;  // COM1 and on
    };
    // Claims its ports and registers its sections. Opens what is behind serial ports: may block.
    static Result<std::unique_ptr<Platform>> create(const Parts& parts, const Config& config);
    ~Platform() override = default;
    Platform(const Platform&) = delete;
    Platform& operator=(const Platform&) = delete;

    struct Object {
        std::string path;
        std::string type;
    };
    // Its devices in the object tree.
    std::vector<Object> objects() const;

    void reset();
    void press_power_button() { pm_.press_power_button(); }
    void wake() { pm_.wake(acpi::Pm::WakeReason::Other); }

    std::string_view name() const override { return "platform"; }
    unsigned depth() const override { return 0; }
    bool has_prepare() const override { return false; }
    void vm_change(system::Pass pass, system::VmChange change, system::Done done) override;

 private:
    // Its interrupt by the PM timer, where a test moves the time.
    class PmTimer final : public qtest::VirtualTimer {
     public:
        explicit PmTimer(acpi::Pm& pm) : pm_(pm) {}
        std::optional<int64_t> deadline() override;
        void time_passed() override { pm_.poll_timer(); }

     private:
        acpi::Pm& pm_;
    };
    struct SerialPort {
        std::string path;  // in the object tree
        std::unique_ptr<chardev::CharBackend> backend;
        std::unique_ptr<chardev::Serial> device;
        util::Registration serving;
    };

    Platform(const Parts& parts, const Config& config);
    Result<> set_up(const Parts& parts);
    Result<> add_serial(const Parts& parts, size_t index, const SerialOptions& options);
    Result<> claim(isa::PortBus& ports, uint16_t first, uint32_t count, isa::PortDevice& device);
    template <typename Device>
    Result<> add_section(migration::SaveVMRegistry& registry, Device& device, uint32_t instance);
    std::function<void()> request(GuestRequest what) const;
    acpi::PmActions pm_actions();
    void watch_timer();

    system::MainLoop& loop_;
    GuestRequests& requests_;
    std::shared_ptr<Platform*> self_ = std::make_shared<Platform*>(this);  // for posted calls
    RunningClock clock_;
    isa::Port92 port92_;
    isa::I8042 i8042_;
    acpi::ResetControl reset_control_;
    isa::Rtc rtc_;
    acpi::Pm pm_;
    PmTimer pm_timer_{pm_};
    std::vector<SerialPort> serials_;
    const RunningClock::Passing passing_;
    util::Registration timer_;  // while the guest wants interrupts of the PM timer
    std::vector<util::Registration> registrations_;
};

}  // namespace ferry::vmm
