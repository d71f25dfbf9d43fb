// SPDX-License-Identifier: BSD-2-Clause
// The I/O ports of the machine: who answers at which, and how an access reaches it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "util/registration.h"
#include "util/result.h"

namespace ferry::isa {

// Devices behind ports. Calls come from the thread that acts for the guest (a vCPU, qtest), and may
// come from several; they must not block for long. Little-endian.
class PortDevice {
 public:
    virtual ~PortDevice() = default;
    // The widest access that is passed on whole: 1, 2 or 4. Wider ones come in pieces, lowest
    // first.
    virtual unsigned widest() const = 0;
    // `offset` from the first port claimed; length 1, 2 or 4, at most widest(). What lies above
    // `length` bytes of the value is ignored.
    virtual uint32_t read(uint16_t offset, unsigned length) = 0;
    virtual void write(uint16_t offset, unsigned length, uint32_t value) = 0;
};

// What an access of `length` bytes reads where nobody is.
constexpr uint32_t floating(unsigned length) {
    return length >= sizeof(uint32_t) ? UINT32_MAX : (uint32_t{1} << 8 * length) - 1;
}

// Thread-safe.
//
// An access goes to whoever claims its first port, in naturally aligned pieces as wide as that
// device decodes, even if somebody else claims a port in the middle (0xcf9 inside of 0xcf8); the
// next piece is looked up anew. Ports that nobody claims read all ones and drop writes.
class PortBus {
 public:
    static constexpr uint32_t kPorts = 0x10000;
    static constexpr size_t kMaxClaims = 256;

    // [first, first + count). A claim may lie within another one and wins there; any other overlap
    // is InvalidArgument. The device is borrowed until the Registration goes, which waits for
    // accesses under way: never let go of it from within an access.
    Result<util::Registration> claim(uint16_t first, uint32_t count, PortDevice& device);

    uint32_t read(uint16_t port, unsigned length);
    void write(uint16_t port, unsigned length, uint32_t value);

 private:
    struct Claim {
        uint32_t first;
        uint32_t count;
        PortDevice* device;
        unsigned accesses = 0;
        bool holds(uint32_t port) const { return port >= first && port - first < count; }
        bool within(const Claim& outer) const {
            return first >= outer.first && first + count <= outer.first + outer.count;
        }
    };
    class Access;
    void let_go(const std::shared_ptr<Claim>& claim);

    std::mutex mutex_;  // the list and the counts; never held across a device's method
    std::condition_variable idle_;
    std::vector<std::shared_ptr<Claim>> claims_;  // the smallest first: inner before outer
};

}  // namespace ferry::isa
