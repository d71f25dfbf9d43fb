// SPDX-License-Identifier: BSD-2-Clause
// Interrupts of devices that go from their eventfds to the guest without passing through this
// process: what an accelerator with interrupt controllers in the kernel offers to them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "util/event-fd.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::system {

// A write by a device that is an interrupt.
struct MsiMessage {
    uint64_t address = 0;
    uint32_t data = 0;
    friend bool operator==(const MsiMessage&, const MsiMessage&) = default;
};

// The message-signalled interrupts of one device. One thread at a time. Goes before the VM.
class MsiRoutes {
 public:
    virtual ~MsiRoutes() = default;  // as connect({})

    struct Vector {
        std::shared_ptr<const util::EventFd> event;
        MsiMessage message;
    };
    // By vector: a signal of its eventfd sends the message, and so does one that waits in it now.
    // The eventfds of vectors without an entry, of messages that are no interrupts for the guest,
    // and of all that an Error left unconnected, keep their signals. An empty list gives back
    // whatever the device had.
    virtual Result<> connect(std::span<const std::optional<Vector>> wanted) = 0;
};

// Any thread.
class InterruptRoutes {
 public:
    virtual ~InterruptRoutes() = default;
    virtual std::unique_ptr<MsiRoutes> create_msi_routes() = 0;
    // A level-triggered input of the controllers, until the Registration goes: a signal of `event`
    // raises it; when the guest acknowledges the interrupt, it falls and `acknowledged` is
    // signalled. Several may share an input. The eventfds stay open as long, wherever they are
    // moved. Unsupported where the host cannot tell.
    virtual Result<util::Registration> connect_input(unsigned input, const util::EventFd& event,
                                                     const util::EventFd& acknowledged) = 0;
};

}  // namespace ferry::system
