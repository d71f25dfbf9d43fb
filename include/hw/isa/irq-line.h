// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <functional>

namespace ferry::isa {

// The level of an interrupt line. A device calls it when the level changes, from any thread and
// with the device's lock held, so that levels arrive in order: it must not block, nor call the
// device. Empty where nothing is wired.
using IrqLine = std::function<void(bool level)>;

}  // namespace ferry::isa
