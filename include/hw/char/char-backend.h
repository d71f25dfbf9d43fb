// SPDX-License-Identifier: BSD-2-Clause
// What is behind a serial port on the host: a file, the terminal, a socket, nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "hw/char/char-device.h"
#include "util/char-address.h"
#include "util/log.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::chardev {

// Output that waits to be written; then the guest has to wait, too.
inline constexpr size_t kMaxQueuedOutputBytes = size_t{256} * 1024;
// Input that the guest has not taken yet; then the client has to wait.
inline constexpr size_t kMaxQueuedInputBytes = size_t{64} * 1024;

// A thread of its own ("char/NAME") reads and writes; the device is never blocked. A file takes
// no input. A server has one client at a time, the next one waits until it has
// left; without a client, output is dropped. The process must ignore SIGPIPE.
class CharBackend : public CharSink {
 public:
    // May block (name resolution, connect, Wait::ForClient): before the main loop runs. `log`,
    // which may be null, hears of output that is lost, once until some arrives again.
    static Result<std::unique_ptr<CharBackend>> open(const std::string& name,
                                                     const util::CharAddress& address,
                                                     util::Logger* log = nullptr);
    // Writes what is queued, as far as that goes without waiting for a peer.
    ~CharBackend() override = default;
    // Begins to give `device` its input and to tell it of room; until the Registration goes, which
    // waits for calls under way. One device; must not be called by it.
    virtual util::Registration serve(CharDevice& device) = 0;
};

}  // namespace ferry::chardev
