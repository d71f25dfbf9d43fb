// SPDX-License-Identifier: BSD-2-Clause
// ferry-stream without the process around it.
#pragma once

#include <iosfwd>
#include <span>
#include <string>

namespace ferry::stream_tool {

struct Console {
    std::ostream& out;
    std::ostream& err;
};

// Returns the exit status.
int run(std::span<const std::string> arguments, Console console);

}  // namespace ferry::stream_tool
