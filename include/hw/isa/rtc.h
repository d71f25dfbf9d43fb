// SPDX-License-Identifier: BSD-2-Clause
// MC146818: the real-time clock and its battery-backed memory (CMOS), ports 0x70 and 0x71.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>

#include "hw/isa/port-bus.h"
#include "migration/vmstate.h"

namespace ferry::isa {

// Time of day of the host, UTC; any thread.
using WallClock = std::function<std::chrono::sys_time<std::chrono::nanoseconds>()>;
std::chrono::sys_time<std::chrono::nanoseconds> host_wall_clock();

// The clock shows the host's time plus what the guest has set it ahead. It raises no interrupt:
// register C is always zero.
class Rtc final : public PortDevice {
 public:
    static constexpr uint16_t kPort = 0x70;
    static constexpr uint32_t kCount = 2;
    static constexpr size_t kBytes = 128;

    struct Memory {
        uint64_t below_4g_bytes = 0;  // all RAM below the hole
        uint64_t above_4g_bytes = 0;
        uint32_t cpus = 1;
    };
    Rtc(WallClock wall_clock, const Memory& memory);

    unsigned widest() const override { return 1; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;
    void reset();  // time and memory survive, as with a battery

    struct State {
        uint8_t index = 0;
        std::array<std::byte, kBytes> bytes{};
        int64_t ahead_ns = 0;
        Rtc* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    using Time = std::chrono::sys_time<std::chrono::nanoseconds>;

    void describe(const Memory& memory);
    uint8_t read_register(uint8_t index);
    void write_register(uint8_t index, uint8_t value);
    void write_register_b(uint8_t value);
    bool stopped() const;                         // the guest is setting the time
    void show_time(Time time);                    // into the registers
    std::chrono::sys_seconds shown_time() const;  // out of the registers
    void set_ahead(std::chrono::sys_seconds shown);
    uint8_t encode(unsigned value) const;
    unsigned decode(uint8_t value) const;
    uint8_t encode_hour(unsigned hour) const;
    unsigned decode_hour(uint8_t value) const;

    const WallClock wall_clock_;
    std::mutex mutex_;
    uint8_t index_ = 0;
    std::array<uint8_t, kBytes> bytes_{};
    std::chrono::nanoseconds ahead_{0};
    State state_{0, {}, 0, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::isa
