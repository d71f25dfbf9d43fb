// SPDX-License-Identifier: BSD-2-Clause
// Interrupt lines as a test watches and drives them. Implemented by the machine.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "util/registration.h"
#include "util/result.h"

namespace ferry::qtest {

// Devices are named by their path in the object tree, or its end where that is unique. Any thread.
class InterruptLines {
 public:
    enum class Side : uint8_t { In, Out };  // of the device
    // Called with the lines' lock held, on the thread that changes the level: must not block.
    using Observer = std::function<void(unsigned number, bool level)>;

    virtual ~InterruptLines() = default;
    // The whole path of a device that has lines on that side. InvalidArgument: there is none.
    virtual Result<std::string> resolve(std::string_view device, Side side) = 0;
    // `observer` hears of each change, and at once of lines that are high, until the Registration
    // goes. `device` is a whole path.
    virtual util::Registration watch(const std::string& device, Side side, Observer observer) = 0;
    // Holds an input as if another device were wired to it. InvalidArgument: no such input.
    virtual Result<> set_input(std::string_view device, unsigned number, bool level) = 0;
};

}  // namespace ferry::qtest
