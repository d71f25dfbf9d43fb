// SPDX-License-Identifier: BSD-2-Clause
#include "hw/char/serial.h"

#include <algorithm>
#include <cassert>

#include "util/try.h"

namespace ferry::chardev {

namespace {

// Registers, by offset. With DLAB the first two are the divisor.
constexpr uint16_t kData = 0, kIer = 1, kIirFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6,
                   kScratch = 7;

// Interrupt enable.
constexpr uint8_t kIerData = 1 << 0, kIerThre = 1 << 1, kIerLine = 1 << 2, kIerModem = 1 << 3;
constexpr uint8_t kIerBits = 0x0f;
// Interrupt identification, by falling priority.
constexpr uint8_t kIirLine = 0x06, kIirData = 0x04, kIirTimeout = 0x0c, kIirThre = 0x02,
                  kIirModem = 0x00, kIirNone = 0x01, kIirFifos = 0xc0;
// FIFO control.
constexpr uint8_t kFcrEnable = 1 << 0, kFcrClearInput = 1 << 1, kFcrClearOutput = 1 << 2;
constexpr uint8_t kFcrKept = 0xc9;  // enable, DMA mode, trigger level
constexpr unsigned kFcrTriggerShift = 6;
// Line control.
constexpr uint8_t kLcrDlab = 1 << 7;
// Modem control.
constexpr uint8_t kMcrDtr = 1 << 0, kMcrRts = 1 << 1, kMcrOut1 = 1 << 2, kMcrOut2 = 1 << 3,
                  kMcrLoop = 1 << 4;
constexpr uint8_t kMcrBits = 0x1f;
// Line status.
constexpr uint8_t kLsrData = 1 << 0, kLsrOverrun = 1 << 1, kLsrThre = 1 << 5, kLsrEmpty = 1 << 6;
// Modem status: the lines, and what of them has changed.
constexpr uint8_t kMsrCts = 1 << 4, kMsrDsr = 1 << 5, kMsrRing = 1 << 6, kMsrDcd = 1 << 7;
constexpr uint8_t kMsrDeltaCts = 1 << 0, kMsrDeltaDsr = 1 << 1, kMsrRingEnded = 1 << 2,
                  kMsrDeltaDcd = 1 << 3;
constexpr uint8_t kMsrDeltas = 0x0f;

// What changed between two readings of the modem's lines.
uint8_t modem_delta(uint8_t before, uint8_t after) {
    const auto changed = static_cast<uint8_t>(before ^ after);
    uint8_t delta = 0;
    if ((changed & kMsrCts) != 0) delta |= kMsrDeltaCts;
    if ((changed & kMsrDsr) != 0) delta |= kMsrDeltaDsr;
    if ((changed & before & kMsrRing) != 0) delta |= kMsrRingEnded;
    if ((changed & kMsrDcd) != 0) delta |= kMsrDeltaDcd;
    return delta;
}

void set_low(uint16_t& word, uint8_t value) {
    word = static_cast<uint16_t>((word & 0xff00) | value);
}
void set_high(uint16_t& word, uint8_t value) {
    word = static_cast<uint16_t>((word & 0x00ff) | value << 8);
}

}  // namespace

// ---- SerialFifo

bool SerialFifo::push(std::byte value, size_t capacity) {
    if (size_ >= std::min(capacity, kBytes)) return false;
    bytes_[size_++] = value;
    return true;
}

std::byte SerialFifo::pop() {
    assert(size_ != 0);
    const std::byte first = bytes_[0];
    drop(1);
    return first;
}

void SerialFifo::drop(size_t count) {
    assert(count <= size_);
    std::copy(bytes_.begin() + static_cast<ptrdiff_t>(count),
              bytes_.begin() + static_cast<ptrdiff_t>(size_), bytes_.begin());
    size_ -= count;
}

// ---- what follows from the registers

bool Serial::fifo_enabled() const {
    return (registers_.fcr & kFcrEnable) != 0;
}

bool Serial::loopback() const {
    return (registers_.mcr & kMcrLoop) != 0;
}

size_t Serial::trigger_level() const {
    constexpr std::array<size_t, 4> kLevels{1, 4, 8, 14};
    return fifo_enabled() ? kLevels[registers_.fcr >> kFcrTriggerShift] : 1;
}

bool Serial::takes_input() const {
    return run_ == Run::Running && !loopback() && input_.size() < capacity();
}

uint8_t Serial::line_status() const {
    uint8_t status = registers_.line_errors;
    if (!input_.empty()) status |= kLsrData;
    if (output_.empty()) status |= kLsrThre | kLsrEmpty;
    return status;
}

uint8_t Serial::modem_lines() const {
    // Whoever is on the other end is always ready.
    if (!loopback()) return kMsrCts | kMsrDsr | kMsrDcd;
    const uint8_t mcr = registers_.mcr;
    uint8_t lines = 0;
    if ((mcr & kMcrRts) != 0) lines |= kMsrCts;
    if ((mcr & kMcrDtr) != 0) lines |= kMsrDsr;
    if ((mcr & kMcrOut1) != 0) lines |= kMsrRing;
    if ((mcr & kMcrOut2) != 0) lines |= kMsrDcd;
    return lines;
}

uint8_t Serial::interrupt_id() const {
    const uint8_t enabled = registers_.ier;
    if ((enabled & kIerLine) != 0 && registers_.line_errors != 0) return kIirLine;
    if ((enabled & kIerData) != 0 && !input_.empty()) {
        return input_.size() >= trigger_level() ? kIirData : kIirTimeout;
    }
    if ((enabled & kIerThre) != 0 && registers_.thre_pending) return kIirThre;
    if ((enabled & kIerModem) != 0 && registers_.modem_delta != 0) return kIirModem;
    return kIirNone;
}

void Serial::update_irq() {
    const bool level = interrupt_id() != kIirNone;
    if (level == irq_level_) return;
    irq_level_ = level;
    if (irq_) irq_(level);
}

// ---- characters

size_t Serial::receive(ConstBytes bytes) {
    const std::lock_guard lock(mutex_);
    size_t taken = 0;
    while (taken < bytes.size() && takes_input()) input_.push(bytes[taken++], capacity());
    refused_input_ = taken < bytes.size();
    update_irq();
    return taken;
}

void Serial::writable() {
    const std::lock_guard lock(mutex_);
    transmit();
    update_irq();
}

void Serial::transmit() {
    if (output_.empty() || run_ == Run::Stopped) return;
    output_.drop(sink_.write(output_.view()));
    if (output_.empty()) registers_.thre_pending = true;
}

void Serial::write_data(uint8_t value) {
    const std::byte byte{value};
    registers_.thre_pending = false;
    if (loopback()) {
        if (!input_.push(byte, capacity())) registers_.line_errors |= kLsrOverrun;
        registers_.thre_pending = true;
        return;
    }
    // A guest that does not wait for room loses the character, as on the chip.
    output_.push(byte, capacity());
    transmit();
}

uint8_t Serial::read_data() {
    return input_.empty() ? uint8_t{0} : std::to_integer<uint8_t>(input_.pop());
}

// ---- registers

uint8_t Serial::read_register(uint16_t offset) {
    const bool dlab = (registers_.lcr & kLcrDlab) != 0;
    switch (offset) {
        case kData: return dlab ? static_cast<uint8_t>(registers_.divisor) : read_data();
        case kIer: return dlab ? static_cast<uint8_t>(registers_.divisor >> 8) : registers_.ier;
        case kIirFcr: {
            const uint8_t id = interrupt_id();
            if (id == kIirThre) registers_.thre_pending = false;
            return static_cast<uint8_t>(id | (fifo_enabled() ? kIirFifos : 0));
        }
        case kLcr: return registers_.lcr;
        case kMcr: return registers_.mcr;
        case kLsr: {
            const uint8_t status = line_status();
            registers_.line_errors = 0;
            return status;
        }
        case kMsr:
            return static_cast<uint8_t>(modem_lines() |
                                        std::exchange(registers_.modem_delta, uint8_t{0}));
        default: return registers_.scratch;
    }
}

void Serial::write_register(uint16_t offset, uint8_t value) {
    const bool dlab = (registers_.lcr & kLcrDlab) != 0;
    switch (offset) {
        case kData: return dlab ? set_low(registers_.divisor, value) : write_data(value);
        case kIer: return dlab ? set_high(registers_.divisor, value) : write_ier(value);
        case kIirFcr: return write_fcr(value);
        case kLcr: registers_.lcr = value; return;
        case kMcr: return write_mcr(value);
        case kScratch: registers_.scratch = value; return;
        default: return;  // LSR and MSR
    }
}

void Serial::write_ier(uint8_t value) {
    const auto newly = static_cast<uint8_t>(value & ~registers_.ier);
    registers_.ier = value & kIerBits;
    // Who asks to be told that the transmitter is empty is told at once if it is.
    if ((newly & kIerThre) != 0 && output_.empty()) registers_.thre_pending = true;
}

void Serial::write_fcr(uint8_t value) {
    const bool toggled = ((value ^ registers_.fcr) & kFcrEnable) != 0;
    const bool enable = (value & kFcrEnable) != 0;
    if (toggled || (enable && (value & kFcrClearInput) != 0)) input_.clear();
    if (toggled || (enable && (value & kFcrClearOutput) != 0)) {
        if (!output_.empty()) registers_.thre_pending = true;
        output_.clear();
    }
    registers_.fcr = enable ? value & kFcrKept : 0;
}

void Serial::write_mcr(uint8_t value) {
    const uint8_t before = modem_lines();
    registers_.mcr = value & kMcrBits;
    registers_.modem_delta |= modem_delta(before, modem_lines());
}

uint32_t Serial::read(uint16_t offset, unsigned) {
    const std::lock_guard lock(mutex_);
    const uint8_t value = read_register(offset);
    update_irq();
    offer_room();
    return value;
}

void Serial::write(uint16_t offset, unsigned, uint32_t value) {
    const std::lock_guard lock(mutex_);
    write_register(offset, static_cast<uint8_t>(value));
    update_irq();
    offer_room();
}

void Serial::offer_room() {
    if (!refused_input_ || !takes_input()) return;
    refused_input_ = false;
    sink_.readable();
}

// ---- life

void Serial::start() {
    const std::lock_guard lock(mutex_);
    run_ = Run::Running;
    transmit();
    irq_level_ = interrupt_id() != kIirNone;
    if (irq_) irq_(irq_level_);
    offer_room();
}

void Serial::stop() {
    const std::lock_guard lock(mutex_);
    run_ = Run::Stopped;
}

void Serial::reset() {
    const std::lock_guard lock(mutex_);
    registers_ = {};
    input_.clear();
    output_.clear();
    update_irq();
    offer_room();
}

// ---- migration

void Serial::save_to(State& out) const {
    static_cast<Registers&>(out) = registers_;
    out.input = {};
    out.output = {};
    std::ranges::copy(input_.view(), out.input.begin());
    std::ranges::copy(output_.view(), out.output.begin());
    out.input_size = static_cast<uint8_t>(input_.size());
    out.output_size = static_cast<uint8_t>(output_.size());
}

Result<> Serial::load_from(const State& in) {
    const size_t room = (in.fcr & kFcrEnable) != 0 ? SerialFifo::kBytes : 1;
    if (in.input_size > room || in.output_size > room) {
        return make_error(ErrorKind::Protocol, "{} characters received and {} to send, of {}",
                          in.input_size, in.output_size, room);
    }
    if ((in.ier & ~kIerBits) != 0 || (in.fcr & ~kFcrKept) != 0 || (in.mcr & ~kMcrBits) != 0 ||
        (in.line_errors & ~kLsrOverrun) != 0 || (in.modem_delta & ~kMsrDeltas) != 0) {
        return make_error(ErrorKind::Protocol,
                          "bits that the chip does not have: IER {:#x}, FCR {:#x}, MCR {:#x}, line "
                          "errors {:#x}, modem changes {:#x}",
                          in.ier, in.fcr, in.mcr, in.line_errors, in.modem_delta);
    }
    registers_ = in;
    input_.clear();
    output_.clear();
    for (size_t i = 0; i < in.input_size; ++i) input_.push(in.input[i], room);
    for (size_t i = 0; i < in.output_size; ++i) output_.push(in.output[i], room);
    update_irq();
    return {};
}

const migration::VMStateDescription& Serial::vmstate() {
    const auto at = []<typename V>(V Registers::* member) -> V State::* { return member; };
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-serial", 1, 1)
            .field("divisor", at(&State::divisor))
            .field("ier", at(&State::ier))
            .field("fcr", at(&State::fcr))
            .field("lcr", at(&State::lcr))
            .field("mcr", at(&State::mcr))
            .field("line_errors", at(&State::line_errors))
            .field("modem_delta", at(&State::modem_delta))
            .field("scratch", at(&State::scratch))
            .field("thre_pending", at(&State::thre_pending))
            .field("input_size", &State::input_size)
            .buffer("input", &State::input)
            .field("output_size", &State::output_size)
            .buffer("output", &State::output)
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                state.owner->save_to(state);
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                const std::lock_guard lock(state.owner->mutex_);
                return state.owner->load_from(state);
            })
            .build();
    return kDescription;
}

}  // namespace ferry::chardev
