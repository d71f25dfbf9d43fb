// SPDX-License-Identifier: BSD-2-Clause
#include "hw/acpi/reset-control.h"

#include "util/try.h"

namespace ferry::acpi {

namespace {
constexpr uint32_t kReset = 1 << 2;         // never read back
constexpr uint8_t kKept = 1 << 1 | 1 << 3;  // whole system, with power
}  // namespace

uint32_t ResetControl::read(uint16_t, unsigned) {
    const std::lock_guard lock(mutex_);
    return value_;
}

void ResetControl::write(uint16_t, unsigned, uint32_t value) {
    std::unique_lock lock(mutex_);
    value_ = static_cast<uint8_t>(value & kKept);
    lock.unlock();
    if ((value & kReset) != 0 && request_) request_();
}

void ResetControl::reset() {
    const std::lock_guard lock(mutex_);
    value_ = 0;
}

const migration::VMStateDescription& ResetControl::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-reset-control", 1, 1)
            .field("value", &State::value)
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                state.value = state.owner->value_;
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                if ((state.value & ~kKept) != 0) {
                    return make_error(ErrorKind::Protocol, "no reset control register holds {:#x}",
                                      state.value);
                }
                const std::lock_guard lock(state.owner->mutex_);
                state.owner->value_ = state.value;
                return {};
            })
            .build();
    return kDescription;
}

}  // namespace ferry::acpi
