// SPDX-License-Identifier: BSD-2-Clause
// ACPI's fixed power management hardware: PM1a event and control block, PM timer, the SMI command
// port that switches ACPI on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

#include "hw/isa/irq-line.h"
#include "hw/isa/port-bus.h"
#include "migration/vmstate.h"
#include "util/clock.h"

namespace ferry::acpi {

// The guest's time: never goes backwards, stands still while the VM does not run, migrates with the
// machine. Any thread, with a device's lock held.
using GuestClock = std::function<util::Nanoseconds()>;

enum class Chipset : uint8_t { Ich9, Piix4 };  // q35, pc

// What the guest asks for. Called on the thread of the access, without a lock; it is for the
// machine's main loop to carry it out. None may be empty but timer_changed.
struct PmActions {
    std::function<void()> power_off;      // S5
    std::function<void()> suspend;        // S3; wake() ends it
    std::function<void()> hibernate;      // S4: the guest has saved itself, power off
    std::function<void()> timer_changed;  // timer_deadline() may be another
};

class Pm final : public isa::PortDevice {
 public:
    static constexpr uint16_t kPort = 0x600;  // of both chipsets
    static constexpr uint32_t kCount = 12;
    static constexpr unsigned kSciGsi = 9;
    static constexpr uint32_t kTimerHz = 3579545;

    Pm(Chipset chipset, GuestClock clock, isa::IrqLine sci, PmActions actions);

    unsigned widest() const override { return 4; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;

    // Ports 0xb2 (command: ACPI on, off) and 0xb3 (a byte of memory).
    static constexpr uint16_t kSmiPort = 0xb2;
    static constexpr uint32_t kSmiCount = 2;
    isa::PortDevice& smi_command() { return smi_command_; }

    void press_power_button();  // system_powerdown
    enum class WakeReason : uint8_t { Other, Rtc, Timer };
    void wake(WakeReason reason);  // after the reset that a wake-up is, if the machine makes one

    // When the timer wants to interrupt the guest next; nothing unless the guest has enabled that.
    // From then on, somebody calls poll_timer().
    std::optional<util::Nanoseconds> timer_deadline();
    void poll_timer();

    void start();  // drives the SCI anew, for an interrupt controller that was loaded
    void reset();

    struct Registers {
        uint16_t status = 0;
        uint16_t enable = 0;
        uint16_t control = 0;
        uint8_t smi_command = 0;
        uint8_t smi_data = 0;
        uint64_t timer_halves = 0;  // how often bit 23 of the timer has flipped, as far as status
                                    // knows
    };
    struct State : Registers {
        Pm* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    class SmiCommand final : public isa::PortDevice {
     public:
        explicit SmiCommand(Pm& pm) : pm_(pm) {}
        unsigned widest() const override { return 1; }
        uint32_t read(uint16_t offset, unsigned length) override;
        void write(uint16_t offset, unsigned length, uint32_t value) override;

     private:
        Pm& pm_;
    };
    enum class Effect : uint8_t { None, PowerOff, Suspend, Hibernate };

    // All with the lock held.
    uint64_t ticks() const;
    uint8_t read_byte(uint16_t offset) const;
    Effect write_byte(uint16_t offset, uint8_t value);
    Effect enter_sleep() const;
    void notice_flips();
    void update_sci();
    void carry_out(Effect effect) const;
    Result<> load_from(const State& in);

    const Chipset chipset_;
    const GuestClock clock_;
    const isa::IrqLine sci_;
    const PmActions actions_;
    std::mutex mutex_;
    Registers registers_;
    bool sci_level_ = false;
    SmiCommand smi_command_{*this};
    State state_{{}, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::acpi
