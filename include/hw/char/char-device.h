// SPDX-License-Identifier: BSD-2-Clause
// The two ends of a character device: what the guest sees, and where its bytes go and come from.
#pragma once

#include <cstddef>

#include "util/bytes.h"

namespace ferry::chardev {

// Where a device's output goes. Any thread, also with the device's lock held: neither call blocks
// or calls the device.
class CharSink {
 public:
    virtual ~CharSink() = default;
    // How many of the first bytes were taken; fewer than all when they pile up, and then
    // CharDevice::writable() follows once there is room.
    virtual size_t write(ConstBytes bytes) = 0;
    // The device takes input again, after it has refused some.
    virtual void readable() = 0;
};

// What the guest sees. Any thread; neither call blocks.
class CharDevice {
 public:
    virtual ~CharDevice() = default;
    // How many of the first bytes were taken. The rest is offered again after CharSink::readable().
    virtual size_t receive(ConstBytes bytes) = 0;
    virtual void writable() = 0;  // the sink has room again
};

}  // namespace ferry::chardev
