// SPDX-License-Identifier: BSD-2-Clause
// The wires between the devices of the board and its interrupt controllers, one per global system
// interrupt. Devices may share one: it is high while any of them holds it so.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "accel/kvm/interrupts.h"
#include "accel/qtest/interrupt-lines.h"
#include "hw/isa/irq-line.h"
#include "hw/pci/pci.h"
#include "system/vmm/machine-types.h"

namespace ferry::vmm {

// Where a pin (1 to 4: INTA to INTD) of a function on bus 0 is wired to. There is no firmware that
// could route it otherwise.
unsigned pci_interrupt_line(MachineType machine, pci::PciAddress address, unsigned pin);

// Thread-safe. Outlives the devices that are wired to it.
class InterruptLines final : public qtest::InterruptLines {
 public:
    static constexpr unsigned kLines = kvm::kIoApicPins;
    static constexpr const char* kControllerPath = "/machine/unattached/ioapic";

    InterruptLines() = default;
    ~InterruptLines() override = default;
    InterruptLines(const InterruptLines&) = delete;
    InterruptLines& operator=(const InterruptLines&) = delete;

    // Who takes the levels; nobody without it. Called with the lock held, so that levels arrive in
    // order; also when a device repeats a level, for a controller that was loaded meanwhile.
    using Controller = std::function<void(unsigned line, bool level)>;
    void set_controller(Controller controller);

    // Wires output `number` of the device at `path` to a line. It is low at first, and again when
    // the last copy of what is returned goes.
    isa::IrqLine connect(std::string path, unsigned number, unsigned line);

    Result<std::string> resolve(std::string_view device, Side side) override;
    util::Registration watch(const std::string& device, Side side, Observer observer) override;
    Result<> set_input(std::string_view device, unsigned number, bool level) override;

 private:
    struct Wire {
        std::string path;
        unsigned number;  // of the device's output
        unsigned line;
        bool level = false;
    };
    struct Watch {
        std::string path;
        Side side;
        Observer observer;
    };
    class Source;
    void set(Wire& wire, bool level);
    void disconnect(Wire& wire);

    std::mutex mutex_;  // all below
    Controller controller_;
    std::array<unsigned, kLines> holders_{};  // how many wires hold the line high
    std::vector<Wire*> wires_;
    std::vector<std::shared_ptr<Watch>> watches_;
    std::array<bool, kLines> driven_{};  // by set_input()
};

}  // namespace ferry::vmm
