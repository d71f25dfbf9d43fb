// SPDX-License-Identifier: BSD-2-Clause
// The qtest protocol: one line of request, one line of reply. Only words and numbers are handled
// here; the machine behind and the socket in front are somebody else's.
// Lines: docs/interop/qtest-protocol.rst; the rest: docs/devel/qtest.rst.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

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

    Protocol(Machine& machine, VirtualClock& clock) : machine_(machine), clock_(clock) {}

    // `line` without its line end; the reply with one.
    std::string handle(std::string_view line);

 private:
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

    Machine& machine_;
    VirtualClock& clock_;
};

}  // namespace ferry::qtest
