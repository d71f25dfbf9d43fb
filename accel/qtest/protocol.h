// SPDX-License-Identifier: BSD-2-Clause
// The qtest protocol: one line of request, one line of reply. Only words and numbers are handled
// here; the machine behind and the socket in front are somebody else's.
// Lines: docs/interop/qtest-protocol.rst; the rest: docs/devel/qtest.rst.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "accel/qtest/interrupt-lines.h"
#include "accel/qtest/virtual-clock.h"
#include "util/bytes.h"

namespace ferry::qtest {

// The machine as its CPU sees it. Called on the thread that handles requests; may block.
class Machine {
 public:
    virtual ~Machine() = default;
    // Never fails: what nobody answers reads as all ones, and writes go nowhere.
    virtual void memory_read(uint64_t gpa, MutBytes out) = 0;
    virtual void memory_write(uint64_t gpa, ConstBytes in) = 0;
    // length 1, 2 or 4.
    virtual uint32_t port_read(uint16_t port, unsigned length) = 0;
    virtual void port_write(uint16_t port, unsigned length, uint32_t value) = 0;
};

class Protocol {
 public:
    // The most that one read or write may move; memset has a limit of its own.
    static constexpr uint64_t kMaxTransfer = 16 << 20;
    static constexpr uint64_t kMaxMemset = uint64_t{64} << 30;
    // Room for a write of kMaxTransfer bytes in hex, and its command and numbers.
    static constexpr size_t kMaxLine = 2 * kMaxTransfer + 256;

    struct Parts {  // all outlive the protocol
        Machine& machine;
        VirtualClock* clock = nullptr;    // null: time is not the client's to move
        InterruptLines* lines = nullptr;  // null: the machine has none
    };
    // Gets lines that answer nothing, on the thread that causes them; must not block.
    using Unasked = std::function<void(std::string line)>;
    Protocol(Parts parts, Unasked unasked) : parts_(parts), unasked_(std::move(unasked)) {}

    // `line` without its line end; the reply with one. Unasked lines that it causes come before it
    // returns.
    std::string handle(std::string_view line);
    // What the client watched is watched no longer.
    void client_left() { intercept_.reset(); }

 private:
    struct Intercept {
        std::string device;
        util::Registration watch;
    };
    using Words = std::span<const std::string_view>;
    std::string port_io(std::string_view command, Words arguments);
    std::string memory_value(std::string_view command, Words arguments);
    std::string read(Words arguments);
    std::string write(Words arguments);
    std::string base64_read(Words arguments);
    std::string base64_write(Words arguments);
    std::string memset(Words arguments);
    std::string clock_step(Words arguments);
    std::string clock_set(Words arguments);
    std::string clock_to(int64_t time);
    std::string intercept(InterruptLines::Side side, Words arguments);
    std::string set_irq_in(Words arguments);

    const Parts parts_;
    const Unasked unasked_;
    std::optional<Intercept> intercept_;
};

}  // namespace ferry::qtest
