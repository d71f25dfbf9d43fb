// SPDX-License-Identifier: BSD-2-Clause
// SIGTERM, SIGINT and SIGHUP as orderly ends of the process, with exit status 0.
#pragma once

#include <functional>
#include <string>

#include "system/main-loop.h"
#include "util/event-fd.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vmm {

// From here on these signals end the process with status 0, and SIGPIPE is ignored. Call once, at
// the start of main().
Result<> install_signal_handlers();

// From here on they call `ended` on the loop thread, with the text to show.
Result<util::Registration> on_termination(system::MainLoop& loop,
                                          std::function<void(const std::string& message)> ended);

}  // namespace ferry::vmm
