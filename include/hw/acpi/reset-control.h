// SPDX-License-Identifier: BSD-2-Clause
// The reset control register, port 0xcf9, of both chipsets.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "hw/isa/port-bus.h"
#include "migration/vmstate.h"

namespace ferry::acpi {

class ResetControl final : public isa::PortDevice {
 public:
    static constexpr uint16_t kPort = 0xcf9;  // lies within the claim of PCI's address port
    static constexpr uint32_t kCount = 1;

    // `request`: the guest asks for a reset. On the thread of the access, without a lock; it is for
    // the main loop to carry it out.
    explicit ResetControl(std::function<void()> request) : request_(std::move(request)) {}

    unsigned widest() const override { return 1; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;
    void reset();

    struct State {
        uint8_t value = 0;
        ResetControl* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    const std::function<void()> request_;
    std::mutex mutex_;
    uint8_t value_ = 0;
    State state_{0, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::acpi
