// SPDX-License-Identifier: BSD-2-Clause
#include "hw/acpi/pm.h"

#include <algorithm>
#include <utility>

#include "util/try.h"

namespace ferry::acpi {

namespace {

// Offsets: status, enable and control of 16 bits, the timer of 32.
constexpr uint16_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8;

// Status and enable.
constexpr uint16_t kTimerBit = 1 << 0, kGlobal = 1 << 5, kPowerButton = 1 << 8, kRtc = 1 << 10,
                   kWake = 1 << 15;
constexpr uint16_t kSciSources = kTimerBit | kGlobal | kPowerButton | kRtc;
// Control.
constexpr uint16_t kSciEnable = 1 << 0, kSleepEnable = 1 << 13;
constexpr unsigned kSleepTypeShift = 10;
constexpr unsigned kSleepTypeMask = 7;
// Sleep types of both chipsets.
constexpr unsigned kS5 = 0, kS3 = 1, kS4 = 2;

// The timer has 24 bits; the status bit tells that the highest one has flipped.
constexpr uint32_t kTimerMask = 0xff'ffff;
constexpr unsigned kTimerHalfShift = 23;

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

// What the SMI command port takes.
struct SmiCommands {
    uint8_t acpi_on;
    uint8_t acpi_off;
};
constexpr SmiCommands smi_commands(Chipset chipset) {
    switch (chipset) {
        case Chipset::Ich9: return {.acpi_on = 0x02, .acpi_off = 0x03};
        case Chipset::Piix4: return {.acpi_on = 0xf1, .acpi_off = 0xf0};
    }
    std::unreachable();
}

uint8_t byte_of(uint16_t word, uint16_t offset) {
    return static_cast<uint8_t>(word >> 8 * (offset % 2));
}

void set_byte(uint16_t& word, uint16_t offset, uint8_t value) {
    const unsigned shift = 8 * (offset % 2);
    word = static_cast<uint16_t>((word & ~(0xff << shift)) | value << shift);
}

}  // namespace

Pm::Pm(Chipset chipset, GuestClock clock, isa::IrqLine sci, PmActions actions)
    : chipset_(chipset),
      clock_(std::move(clock)),
      sci_(std::move(sci)),
      actions_(std::move(actions)) {
    registers_.timer_halves = ticks() >> kTimerHalfShift;
}

// ---- the timer

uint64_t Pm::ticks() const {
    __extension__ using Wide = unsigned __int128;
    const auto ns = static_cast<uint64_t>(clock_().count());
    return static_cast<uint64_t>(static_cast<Wide>(ns) * kTimerHz / kNanosecondsPerSecond);
}

void Pm::notice_flips() {
    const uint64_t halves = ticks() >> kTimerHalfShift;
    if (halves <= registers_.timer_halves) return;
    registers_.timer_halves = halves;
    registers_.status |= kTimerBit;
}

std::optional<util::Nanoseconds> Pm::timer_deadline() {
    const std::lock_guard lock(mutex_);
    if ((registers_.enable & kTimerBit) == 0) return std::nullopt;
    if ((registers_.status & kTimerBit) != 0) return std::nullopt;  // it interrupts already
    __extension__ using Wide = unsigned __int128;
    const Wide ticks = static_cast<Wide>(registers_.timer_halves + 1) << kTimerHalfShift;
    // Rounded up: at that time the tick has come.
    const Wide ns = (ticks * kNanosecondsPerSecond + kTimerHz - 1) / kTimerHz;
    if (ns > static_cast<Wide>(util::Nanoseconds::max().count())) return std::nullopt;
    return util::Nanoseconds(static_cast<int64_t>(ns));
}

void Pm::poll_timer() {
    const std::lock_guard lock(mutex_);
    notice_flips();
    update_sci();
}

// ---- registers

// Of the timer's bytes each is read from the same moment: see read().
uint8_t Pm::read_byte(uint16_t offset) const {
    switch (offset & ~1u) {
        case kStatus: return byte_of(registers_.status, offset);
        case kEnable: return byte_of(registers_.enable, offset);
        case kControl: return byte_of(registers_.control, offset);
        default: return 0;
    }
}

uint32_t Pm::read(uint16_t offset, unsigned length) {
    const std::lock_guard lock(mutex_);
    notice_flips();
    update_sci();
    if (offset >= kTimer) {
        const auto value = static_cast<uint32_t>(ticks() & kTimerMask);
        return value >> 8 * (offset - kTimer);
    }
    uint32_t value = 0;
    for (unsigned i = 0; i < length; ++i) {
        value |= uint32_t{read_byte(static_cast<uint16_t>(offset + i))} << 8 * i;
    }
    return value;
}

void Pm::write(uint16_t offset, unsigned length, uint32_t value) {
    std::unique_lock lock(mutex_);
    notice_flips();
    const uint16_t timer_before = (registers_.enable & ~registers_.status) & kTimerBit;
    Effect effect = Effect::None;
    for (unsigned i = 0; i < length; ++i) {
        const Effect one =
            write_byte(static_cast<uint16_t>(offset + i), static_cast<uint8_t>(value >> 8 * i));
        if (one != Effect::None) effect = one;
    }
    update_sci();
    const uint16_t timer_after = (registers_.enable & ~registers_.status) & kTimerBit;
    lock.unlock();
    if (timer_after != timer_before && actions_.timer_changed) actions_.timer_changed();
    carry_out(effect);
}

Pm::Effect Pm::write_byte(uint16_t offset, uint8_t value) {
    switch (offset & ~1u) {
        case kStatus: {  // ones clear
            uint16_t ones = 0;
            set_byte(ones, offset, value);
            registers_.status &= static_cast<uint16_t>(~ones);
            return Effect::None;
        }
        case kEnable: set_byte(registers_.enable, offset, value); return Effect::None;
        case kControl: {
            set_byte(registers_.control, offset, value);
            const bool sleep = (registers_.control & kSleepEnable) != 0;
            registers_.control &= static_cast<uint16_t>(~kSleepEnable);  // reads as zero
            return sleep ? enter_sleep() : Effect::None;
        }
        default: return Effect::None;
    }
}

Pm::Effect Pm::enter_sleep() const {
    switch (registers_.control >> kSleepTypeShift & kSleepTypeMask) {
        case kS5: return Effect::PowerOff;
        case kS3: return Effect::Suspend;
        case kS4: return Effect::Hibernate;
        default: return Effect::None;  // the chipsets know no others
    }
}

void Pm::carry_out(Effect effect) const {
    switch (effect) {
        case Effect::None: return;
        case Effect::PowerOff: return actions_.power_off();
        case Effect::Suspend: return actions_.suspend();
        case Effect::Hibernate: return actions_.hibernate();
    }
}

void Pm::update_sci() {
    const bool level = (registers_.status & registers_.enable & kSciSources) != 0;
    if (level == sci_level_) return;
    sci_level_ = level;
    if (sci_) sci_(level);
}

// ---- ACPI on and off

uint32_t Pm::SmiCommand::read(uint16_t offset, unsigned) {
    const std::lock_guard lock(pm_.mutex_);
    return offset == 0 ? pm_.registers_.smi_command : pm_.registers_.smi_data;
}

void Pm::SmiCommand::write(uint16_t offset, unsigned, uint32_t value) {
    const std::lock_guard lock(pm_.mutex_);
    const auto byte = static_cast<uint8_t>(value);
    Registers& registers = pm_.registers_;
    if (offset != 0) {
        registers.smi_data = byte;
        return;
    }
    registers.smi_command = byte;
    const SmiCommands commands = smi_commands(pm_.chipset_);
    if (byte == commands.acpi_on) registers.control |= kSciEnable;
    if (byte == commands.acpi_off) registers.control &= static_cast<uint16_t>(~kSciEnable);
}

// ---- events

void Pm::press_power_button() {
    const std::lock_guard lock(mutex_);
    registers_.status |= kPowerButton;
    update_sci();
}

void Pm::wake(WakeReason reason) {
    const std::lock_guard lock(mutex_);
    registers_.status |= kWake;
    if (reason == WakeReason::Rtc) registers_.status |= kRtc;
    if (reason == WakeReason::Timer) registers_.status |= kTimerBit;
    update_sci();
}

void Pm::start() {
    const std::lock_guard lock(mutex_);
    notice_flips();
    sci_level_ = (registers_.status & registers_.enable & kSciSources) != 0;
    if (sci_) sci_(sci_level_);
}

void Pm::reset() {
    {
        const std::lock_guard lock(mutex_);
        registers_ = {};
        registers_.timer_halves = ticks() >> kTimerHalfShift;  // it goes on counting
        update_sci();
    }
    if (actions_.timer_changed) actions_.timer_changed();
}

// ---- migration

Result<> Pm::load_from(const State& in) {
    if ((in.control & kSleepEnable) != 0) {
        return make_error(ErrorKind::Protocol, "PM1 control {:#x}: the sleep bit never stays set",
                          in.control);
    }
    {
        const std::lock_guard lock(mutex_);
        registers_ = in;
        // A time yet to come would keep the timer silent until then.
        registers_.timer_halves = std::min(in.timer_halves, ticks() >> kTimerHalfShift);
        update_sci();
    }
    if (actions_.timer_changed) actions_.timer_changed();
    return {};
}

const migration::VMStateDescription& Pm::vmstate() {
    const auto at = []<typename V>(V Registers::* member) -> V State::* { return member; };
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-acpi-pm", 1, 1)
            .field("status", at(&State::status))
            .field("enable", at(&State::enable))
            .field("control", at(&State::control))
            .field("smi_command", at(&State::smi_command))
            .field("smi_data", at(&State::smi_data))
            .field("timer_halves", at(&State::timer_halves))
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                state.owner->notice_flips();
                static_cast<Registers&>(state) = state.owner->registers_;
            })
            .post_load(
                [](State& state, uint32_t) -> Result<> { return state.owner->load_from(state); })
            .build();
    return kDescription;
}

}  // namespace ferry::acpi
