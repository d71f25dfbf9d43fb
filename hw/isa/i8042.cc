// SPDX-License-Identifier: BSD-2-Clause
#include "hw/isa/i8042.h"

#include <utility>

#include "util/try.h"

namespace ferry::isa {

namespace {

constexpr uint16_t kDataPort = 0, kCommandPort = 4;  // 0x60, 0x64

// Status.
constexpr uint8_t kOutputFull = 1 << 0, kSystem = 1 << 2, kLastWasCommand = 1 << 3;
// Output port.
constexpr uint8_t kNotReset = 1 << 0, kA20 = 1 << 1;

// Commands.
constexpr uint8_t kReadMode = 0x20, kWriteMode = 0x60, kSelfTest = 0xaa, kTestKeyboard = 0xab;
constexpr uint8_t kDisableKeyboard = 0xad, kEnableKeyboard = 0xae, kReadInputPort = 0xc0;
constexpr uint8_t kReadOutputPort = 0xd0, kWriteOutputPort = 0xd1, kWriteOutputBuffer = 0xd2;
constexpr uint8_t kDisableA20 = 0xdd, kEnableA20 = 0xdf;
constexpr uint8_t kFirstPulse = 0xf0;  // the low bits say which lines of the output port not to

constexpr uint8_t kSelfTestPassed = 0x55, kKeyboardTestPassed = 0x00;
constexpr uint8_t kInputPort = 0x80;     // not locked
constexpr uint8_t kModeDisabled = 0x10;  // the keyboard's clock is off

bool takes_operand(uint8_t command) {
    return command == kWriteMode || command == kWriteOutputPort || command == kWriteOutputBuffer;
}

}  // namespace

uint32_t I8042::read(uint16_t offset, unsigned length) {
    const std::lock_guard lock(mutex_);
    if (offset == kDataPort) return read_data();
    if (offset == kCommandPort) return registers_.status;
    return floating(length);
}

void I8042::write(uint16_t offset, unsigned, uint32_t value) {
    std::unique_lock lock(mutex_);
    Effect effect = Effect::None;
    if (offset == kCommandPort) effect = command(static_cast<uint8_t>(value));
    if (offset == kDataPort) effect = operand(static_cast<uint8_t>(value));
    lock.unlock();
    carry_out(effect);
}

uint8_t I8042::read_data() {
    registers_.status &= static_cast<uint8_t>(~kOutputFull);
    return registers_.data;
}

void I8042::answer(uint8_t value) {
    registers_.data = value;
    registers_.status |= kOutputFull;
}

I8042::Effect I8042::command(uint8_t value) {
    registers_.status |= kLastWasCommand;
    registers_.pending = takes_operand(value) ? value : 0;
    if (value >= kFirstPulse) {
        return (value & kNotReset) == 0 ? Effect::Reset : Effect::None;
    }
    switch (value) {
        case kReadMode: answer(registers_.mode); break;
        case kSelfTest:
            registers_.status |= kSystem;
            answer(kSelfTestPassed);
            break;
        case kTestKeyboard: answer(kKeyboardTestPassed); break;
        case kDisableKeyboard: registers_.mode |= kModeDisabled; break;
        case kEnableKeyboard: registers_.mode &= static_cast<uint8_t>(~kModeDisabled); break;
        case kReadInputPort: answer(kInputPort); break;
        case kReadOutputPort: answer(registers_.output_port); break;
        case kDisableA20: return write_output_port(registers_.output_port & ~kA20);
        case kEnableA20: return write_output_port(registers_.output_port | kA20);
        default: break;  // the second port's commands get no answer: there is no such port
    }
    return Effect::None;
}

I8042::Effect I8042::operand(uint8_t value) {
    registers_.status &= static_cast<uint8_t>(~kLastWasCommand);
    switch (std::exchange(registers_.pending, uint8_t{0})) {
        case kWriteMode: registers_.mode = value; break;
        case kWriteOutputPort: return write_output_port(value);
        case kWriteOutputBuffer: answer(value); break;
        default: break;  // for the keyboard, which is not there
    }
    return Effect::None;
}

I8042::Effect I8042::write_output_port(uint8_t value) {
    if ((value & kNotReset) == 0) return Effect::Reset;
    const uint8_t before = std::exchange(registers_.output_port, value);
    if (((before ^ value) & kA20) == 0) return Effect::None;
    return (value & kA20) != 0 ? Effect::A20On : Effect::A20Off;
}

void I8042::carry_out(Effect effect) const {
    switch (effect) {
        case Effect::None: return;
        case Effect::Reset:
            if (actions_.reset) actions_.reset();
            return;
        case Effect::A20On:
        case Effect::A20Off:
            if (actions_.set_a20) actions_.set_a20(effect == Effect::A20On);
            return;
    }
}

void I8042::reset() {
    {
        const std::lock_guard lock(mutex_);
        registers_ = {};
    }
    carry_out(Effect::A20On);
}

const migration::VMStateDescription& I8042::vmstate() {
    const auto at = []<typename V>(V Registers::* member) -> V State::* { return member; };
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-i8042", 1, 1)
            .field("status", at(&State::status))
            .field("mode", at(&State::mode))
            .field("output_port", at(&State::output_port))
            .field("data", at(&State::data))
            .field("pending", at(&State::pending))
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                static_cast<Registers&>(state) = state.owner->registers_;
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                if (state.pending != 0 && !takes_operand(state.pending)) {
                    return make_error(ErrorKind::Protocol, "command {:#x} takes no operand",
                                      state.pending);
                }
                {
                    const std::lock_guard lock(state.owner->mutex_);
                    state.owner->registers_ = state;
                }
                state.owner->carry_out((state.output_port & kA20) != 0 ? Effect::A20On
                                                                       : Effect::A20Off);
                return {};
            })
            .build();
    return kDescription;
}

}  // namespace ferry::isa
