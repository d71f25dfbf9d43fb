// SPDX-License-Identifier: BSD-2-Clause
// A person at a terminal: lines are edited, remembered and completed (libedit) on a thread of their
// own; the loop gets whole lines.
#pragma once

#include <memory>

#include "monitor/read-line.h"
#include "monitor/transport.h"

namespace ferry::monitor {

// Descriptors 0 and 1, which are a terminal. What is sent after the last line end is the prompt.
Result<std::unique_ptr<MonitorTransport>> make_terminal_transport(system::MainLoop& loop,
                                                                  Completer completer);

}  // namespace ferry::monitor
