// SPDX-License-Identifier: BSD-2-Clause
#include "hw/isa/rtc.h"

#include <algorithm>
#include <utility>

#include "util/try.h"

namespace ferry::isa {

namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

// Registers, and the bytes of memory that tell how the machine is made.
constexpr uint8_t kSeconds = 0;
constexpr uint8_t kMinutes = 2;
constexpr uint8_t kHours = 4;
constexpr uint8_t kDayOfWeek = 6;  // 1: Sunday
constexpr uint8_t kDayOfMonth = 7;
constexpr uint8_t kMonth = 8;
constexpr uint8_t kYear = 9;
constexpr uint8_t kRegisterA = 0xa;
constexpr uint8_t kRegisterB = 0xb;
constexpr uint8_t kRegisterC = 0xc;
constexpr uint8_t kRegisterD = 0xd;
constexpr uint8_t kEquipment = 0x14;
constexpr uint8_t kBaseKib = 0x15;
constexpr uint8_t kExtendedKib = 0x17;
constexpr uint8_t kExtendedKibAgain = 0x30;
constexpr uint8_t kCentury = 0x32;
constexpr uint8_t kAbove16Mib = 0x34;
constexpr uint8_t kAbove4Gib = 0x5b;
constexpr uint8_t kMoreCpus = 0x5f;

// Register A.
constexpr uint8_t kUpdating = 0x80;
constexpr uint8_t kRegisterAAtPowerOn = 0x26;  // 32768 Hz, dividers running
// Register B.
constexpr uint8_t kSet = 0x80, kInterrupts = 0x70, kSquareWave = 0x08, kBinary = 0x04,
                  k24Hours = 0x02;
constexpr uint8_t kBatteryGood = 0x80;  // register D
constexpr uint8_t kFpu = 0x02;          // equipment

constexpr uint8_t kPm = 0x80;         // hours, when counting to 12
constexpr uint8_t kIndexMask = 0x7f;  // the top bit masks NMIs

// The chip says for so long that it is about to change the time.
constexpr nanoseconds kUpdateLength = std::chrono::microseconds(244);
// What a guest can set is within the years 0 to 9999.
constexpr nanoseconds kFarthest = std::chrono::years(200);

bool shows_time(uint8_t index) {
    switch (index) {
        case kSeconds:
        case kMinutes:
        case kHours:
        case kDayOfWeek:
        case kDayOfMonth:
        case kMonth:
        case kYear:
        case kCentury: return true;
        default: return false;
    }
}

template <size_t N>
void put_le(std::array<uint8_t, N>& bytes, size_t at, size_t count, uint64_t value) {
    for (size_t i = 0; i < count; ++i) bytes[at + i] = static_cast<uint8_t>(value >> 8 * i);
}

}  // namespace

std::chrono::sys_time<nanoseconds> host_wall_clock() {
    return std::chrono::time_point_cast<nanoseconds>(std::chrono::system_clock::now());
}

Rtc::Rtc(WallClock wall_clock, const Memory& memory) : wall_clock_(std::move(wall_clock)) {
    bytes_[kRegisterA] = kRegisterAAtPowerOn;
    bytes_[kRegisterB] = k24Hours;
    bytes_[kRegisterD] = kBatteryGood;
    bytes_[kEquipment] = kFpu;
    describe(memory);
}

void Rtc::describe(const Memory& memory) {
    constexpr uint64_t kKib = 1024, kMib = kKib * 1024, kUnit = 64 * kKib;
    constexpr uint64_t kBase = 640, kLargest16 = UINT16_MAX, kLargest24 = 0xffffff;
    const uint64_t below = memory.below_4g_bytes;
    const auto beyond = [below](uint64_t start) { return below > start ? below - start : 0; };
    const uint64_t extended = std::min(beyond(kMib) / kKib, kLargest16);

    put_le(bytes_, kBaseKib, 2, std::min(below / kKib, kBase));
    put_le(bytes_, kExtendedKib, 2, extended);
    put_le(bytes_, kExtendedKibAgain, 2, extended);
    put_le(bytes_, kAbove16Mib, 2, std::min(beyond(16 * kMib) / kUnit, kLargest16));
    put_le(bytes_, kAbove4Gib, 3, std::min(memory.above_4g_bytes / kUnit, kLargest24));
    bytes_[kMoreCpus] = static_cast<uint8_t>(std::clamp<uint32_t>(memory.cpus, 1, 256) - 1);
}

// ---- ports

uint32_t Rtc::read(uint16_t offset, unsigned length) {
    if (offset == 0) return floating(length);  // the index can only be written
    const std::lock_guard lock(mutex_);
    return read_register(index_);
}

void Rtc::write(uint16_t offset, unsigned, uint32_t value) {
    const std::lock_guard lock(mutex_);
    if (offset == 0) {
        index_ = static_cast<uint8_t>(value & kIndexMask);
    } else {
        write_register(index_, static_cast<uint8_t>(value));
    }
}

uint8_t Rtc::read_register(uint8_t index) {
    const Time now = wall_clock_() + ahead_;
    if (shows_time(index) && !stopped()) show_time(now);
    if (index == kRegisterC) return 0;
    if (index == kRegisterA && !stopped()) {
        const nanoseconds into = now - std::chrono::floor<seconds>(now);
        const bool soon = into >= seconds(1) - kUpdateLength;
        return static_cast<uint8_t>(bytes_[kRegisterA] | (soon ? kUpdating : 0));
    }
    return bytes_[index];
}

void Rtc::write_register(uint8_t index, uint8_t value) {
    if (index == kRegisterC || index == kRegisterD) return;
    if (index == kRegisterB) return write_register_b(value);
    if (index == kRegisterA) value &= static_cast<uint8_t>(~kUpdating);
    const bool sets_time = shows_time(index) && !stopped();
    if (sets_time) show_time(wall_clock_() + ahead_);
    bytes_[index] = value;
    if (sets_time) set_ahead(shown_time());
}

void Rtc::write_register_b(uint8_t value) {
    const bool was_stopped = stopped();
    // From SET on, the registers hold the time at which they stopped.
    if (!was_stopped) show_time(wall_clock_() + ahead_);
    bytes_[kRegisterB] = value;
    if (was_stopped && !stopped()) set_ahead(shown_time());
}

bool Rtc::stopped() const {
    return (bytes_[kRegisterB] & kSet) != 0;
}

// ---- time

uint8_t Rtc::encode(unsigned value) const {
    if ((bytes_[kRegisterB] & kBinary) != 0) return static_cast<uint8_t>(value);
    return static_cast<uint8_t>(value / 10 % 10 << 4 | value % 10);
}

unsigned Rtc::decode(uint8_t value) const {
    if ((bytes_[kRegisterB] & kBinary) != 0) return value;
    return (value >> 4) * 10u + (value & 0xf);
}

uint8_t Rtc::encode_hour(unsigned hour) const {
    if ((bytes_[kRegisterB] & k24Hours) != 0) return encode(hour);
    const unsigned of_12 = hour % 12 == 0 ? 12 : hour % 12;
    return static_cast<uint8_t>(encode(of_12) | (hour >= 12 ? kPm : 0));
}

unsigned Rtc::decode_hour(uint8_t value) const {
    if ((bytes_[kRegisterB] & k24Hours) != 0) return decode(value);
    const unsigned of_12 = decode(static_cast<uint8_t>(value & ~kPm)) % 12;
    return of_12 + ((value & kPm) != 0 ? 12 : 0);
}

void Rtc::show_time(Time time) {
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss clock(std::chrono::floor<seconds>(time - day));
    const auto year = static_cast<unsigned>(std::clamp(static_cast<int>(date.year()), 0, 9999));

    bytes_[kSeconds] = encode(static_cast<unsigned>(clock.seconds().count()));
    bytes_[kMinutes] = encode(static_cast<unsigned>(clock.minutes().count()));
    bytes_[kHours] = encode_hour(static_cast<unsigned>(clock.hours().count()));
    bytes_[kDayOfWeek] = encode(std::chrono::weekday(day).c_encoding() + 1);
    bytes_[kDayOfMonth] = encode(static_cast<unsigned>(date.day()));
    bytes_[kMonth] = encode(static_cast<unsigned>(date.month()));
    bytes_[kYear] = encode(year % 100);
    bytes_[kCentury] = encode(year / 100);
}

// Any contents are a time: what is too large carries over, as 31 April into May.
std::chrono::sys_seconds Rtc::shown_time() const {
    const unsigned year = decode(bytes_[kCentury]) * 100 + decode(bytes_[kYear]);
    const unsigned month = std::max(decode(bytes_[kMonth]), 1u) - 1;
    const unsigned day = std::max(decode(bytes_[kDayOfMonth]), 1u) - 1;
    const std::chrono::year_month_day first(std::chrono::year(static_cast<int>(year + month / 12)),
                                            std::chrono::month(month % 12 + 1),
                                            std::chrono::day(1));
    return std::chrono::sys_days(first) + std::chrono::days(day) +
           std::chrono::hours(decode_hour(bytes_[kHours])) +
           std::chrono::minutes(decode(bytes_[kMinutes])) + seconds(decode(bytes_[kSeconds]));
}

// Nanoseconds of 64 bits reach from 1678 to 2262 only; a guest's time beyond that is brought in.
void Rtc::set_ahead(std::chrono::sys_seconds shown) {
    const Time now = wall_clock_();
    const auto whole = std::chrono::floor<seconds>(now);
    const seconds farthest = std::chrono::floor<seconds>(kFarthest) - seconds(1);
    ahead_ = std::clamp(shown - whole, -farthest, farthest) - (now - whole);
}

void Rtc::reset() {
    const std::lock_guard lock(mutex_);
    const auto b = static_cast<uint8_t>(bytes_[kRegisterB] & ~(kInterrupts | kSquareWave));
    write_register_b(b);
}

const migration::VMStateDescription& Rtc::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-rtc", 1, 1)
            .field("index", &State::index)
            .buffer("bytes", &State::bytes)
            .field("ahead_ns", &State::ahead_ns)
            .pre_save([](State& state) {
                const std::lock_guard lock(state.owner->mutex_);
                state.index = state.owner->index_;
                std::ranges::transform(state.owner->bytes_, state.bytes.begin(),
                                       [](uint8_t value) { return std::byte{value}; });
                state.ahead_ns = state.owner->ahead_.count();
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                if (state.index >= kBytes) {
                    return make_error(ErrorKind::Protocol, "register {:#x} of {:#x}", state.index,
                                      kBytes);
                }
                if (state.ahead_ns < -kFarthest.count() || state.ahead_ns > kFarthest.count()) {
                    return make_error(ErrorKind::Protocol,
                                      "the clock is {} ns ahead of the host, more than 200 years",
                                      state.ahead_ns);
                }
                const std::lock_guard lock(state.owner->mutex_);
                state.owner->index_ = state.index;
                std::ranges::transform(state.bytes, state.owner->bytes_.begin(),
                                       [](std::byte b) { return std::to_integer<uint8_t>(b); });
                state.owner->ahead_ = nanoseconds(state.ahead_ns);
                return {};
            })
            .build();
    return kDescription;
}

}  // namespace ferry::isa
