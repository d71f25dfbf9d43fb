// SPDX-License-Identifier: BSD-2-Clause
// The keyboard controller without a keyboard: it answers the probes, gates A20 and resets.
#pragma once

#include <cstdint>
#include <mutex>

#include "hw/isa/port-bus.h"
#include "hw/isa/port92.h"
#include "migration/vmstate.h"

namespace ferry::isa {

// Raises no interrupt. What is written to a keyboard or mouse is lost: neither is connected.
class I8042 final : public PortDevice {
 public:
    // Claims these five; what lies between (0x61 to 0x63) floats.
    static constexpr uint16_t kPort = 0x60;
    static constexpr uint32_t kCount = 5;

    explicit I8042(ResetAndA20 actions) : actions_(std::move(actions)) {}

    unsigned widest() const override { return 1; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;
    void reset();

    struct Registers {
        uint8_t status = 0x18;       // unlocked, the last write was a command
        uint8_t mode = 0x03;         // the command byte
        uint8_t output_port = 0x03;  // A20 open, reset not asserted
        uint8_t data = 0;            // what port 0x60 reads
        uint8_t pending = 0;         // the command whose operand comes next; 0: none
    };
    struct State : Registers {
        I8042* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    enum class Effect : uint8_t { None, Reset, A20On, A20Off };

    Effect command(uint8_t value);
    Effect operand(uint8_t value);
    Effect write_output_port(uint8_t value);
    void answer(uint8_t value);
    void carry_out(Effect effect) const;
    uint8_t read_data();

    const ResetAndA20 actions_;
    std::mutex mutex_;
    Registers registers_;
    State state_{{}, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::isa
