// SPDX-License-Identifier: BSD-2-Clause
// The 16550A UART. See docs/devel/board-devices.rst.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "hw/char/char-device.h"
#include "hw/isa/irq-line.h"
#include "hw/isa/port-bus.h"
#include "migration/vmstate.h"

namespace ferry::chardev {

// The bytes of one direction.
class SerialFifo {
 public:
    static constexpr size_t kBytes = 16;
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    void clear() { size_ = 0; }
    bool push(std::byte value, size_t capacity);  // false: no room
    std::byte pop();                              // of one that is not empty
    ConstBytes view() const { return ConstBytes(bytes_).first(size_); }
    void drop(size_t count);  // the first ones

 private:
    std::array<std::byte, kBytes> bytes_{};  // the oldest first
    size_t size_ = 0;
};

// Characters take no time: output leaves at once unless the sink has no room, then the transmitter
// stays busy; input comes as fast as the guest takes it, so that the character timeout is there as
// soon as fewer than the trigger level are left.
//
// While stopped, no character comes or goes, so what was saved is what goes on. It begins stopped.
class Serial final : public isa::PortDevice, public CharDevice {
 public:
    static constexpr uint32_t kCount = 8;
    static constexpr uint16_t kCom1 = 0x3f8, kCom2 = 0x2f8, kCom3 = 0x3e8, kCom4 = 0x2e8;

    // `sink` outlives it.
    Serial(CharSink& sink, isa::IrqLine irq) : sink_(sink), irq_(std::move(irq)) {}

    // With the VM. start() also drives the line anew, for an interrupt controller that was loaded.
    void start();
    void stop();
    void reset();

    unsigned widest() const override { return 1; }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;

    size_t receive(ConstBytes bytes) override;
    void writable() override;

    struct Registers {
        uint16_t divisor = 12;  // 9600 baud
        uint8_t ier = 0;
        uint8_t fcr = 0;
        uint8_t lcr = 0;
        uint8_t mcr = 0x08;
        uint8_t line_errors = 0;  // overrun, until LSR is read
        uint8_t modem_delta = 0;  // the low half of MSR, until that is read
        uint8_t scratch = 0;
        bool thre_pending = false;  // the transmitter has become empty
    };
    struct State : Registers {
        uint8_t input_size = 0;
        uint8_t output_size = 0;
        std::array<std::byte, SerialFifo::kBytes> input{};
        std::array<std::byte, SerialFifo::kBytes> output{};
        Serial* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    // All with the lock held.
    bool fifo_enabled() const;
    bool loopback() const;
    size_t capacity() const { return fifo_enabled() ? SerialFifo::kBytes : 1; }
    size_t trigger_level() const;
    bool takes_input() const;
    uint8_t line_status() const;
    uint8_t modem_lines() const;
    uint8_t interrupt_id() const;  // bit 0 set: none
    uint8_t read_register(uint16_t offset);
    void write_register(uint16_t offset, uint8_t value);
    uint8_t read_data();
    void write_data(uint8_t value);
    void write_ier(uint8_t value);
    void write_fcr(uint8_t value);
    void write_mcr(uint8_t value);
    void transmit();
    void update_irq();
    void offer_room();  // to who was refused
    void save_to(State& out) const;
    Result<> load_from(const State& in);

    CharSink& sink_;
    const isa::IrqLine irq_;
    std::mutex mutex_;
    enum class Run : uint8_t { Stopped, Running } run_ = Run::Stopped;
    Registers registers_;
    SerialFifo input_;
    SerialFifo output_;
    bool refused_input_ = false;  // somebody waits for CharSink::readable()
    bool irq_level_ = false;
    State state_{{}, 0, 0, {}, {}, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::chardev
