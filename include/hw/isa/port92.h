// SPDX-License-Identifier: BSD-2-Clause
// System control port A (0x92): the A20 gate and the fast reset.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "hw/isa/port-bus.h"
#include "migration/vmstate.h"

namespace ferry::isa {

// Both called on the thread of the access, without a lock; may be empty.
struct ResetAndA20 {
    std::function<void()> reset;           // the guest asks for a reset: do not carry it out inside
    std::function<void(bool on)> set_a20;  // whether address line 20 is open
};

// The line is open from the start: there is no firmware that would open it.
class Port92 final : public PortDevice {
 public:
    static constexpr uint16_t kPort = 0x92;
    static constexpr uint32_t kCount = 1;

    explicit Port92(ResetAndA20 actions) : actions_(std::move(actions)) {}

    unsigned widest() const override { return 1; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;
    void reset();

    struct State {
        uint8_t value = 0;
        Port92* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    static constexpr uint8_t kFastReset = 1 << 0, kA20 = 1 << 1;

    void set_a20(bool on) const;

    const ResetAndA20 actions_;
    std::mutex mutex_;
    uint8_t value_ = kA20;
    State state_{0, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::isa
