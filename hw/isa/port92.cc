// SPDX-License-Identifier: BSD-2-Clause
#include "hw/isa/port92.h"

#include "util/try.h"

namespace ferry::isa {

void Port92::set_a20(bool on) const {
    if (actions_.set_a20) actions_.set_a20(on);
}

uint32_t Port92::read(uint16_t, unsigned) {
    const std::lock_guard lock(mutex_);
    return value_;
}

void Port92::write(uint16_t, unsigned, uint32_t value) {
    std::unique_lock lock(mutex_);
    const uint8_t before = std::exchange(value_, static_cast<uint8_t>(value));
    lock.unlock();
    if (((before ^ value) & kA20) != 0) set_a20((value & kA20) != 0);
    const bool rises = (value & ~before & kFastReset) != 0;
    if (rises && actions_.reset) actions_.reset();
}

void Port92::reset() {
    {
        const std::lock_guard lock(mutex_);
        value_ = kA20;
    }
    set_a20(true);
}

const migration::VMStateDescription& Port92::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-port92", 1, 1)
            .field("value", &State::value)
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                state.value = state.owner->value_;
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                {
                    const std::lock_guard lock(state.owner->mutex_);
                    state.owner->value_ = state.value;
                }
                state.owner->set_a20((state.value & kA20) != 0);
                return {};
            })
            .build();
    return kDescription;
}

}  // namespace ferry::isa
