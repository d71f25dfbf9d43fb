// SPDX-License-Identifier: BSD-2-Clause
#include "util/log.h"

#include <fmt/format.h>

#include <cstdio>

namespace ferry::util {

void StderrLogger::log(LogLevel level, std::string_view message) {
    std::string_view prefix;
    switch (level) {
        case LogLevel::Error: prefix = "error: "; break;
        case LogLevel::Warning: prefix = "warning: "; break;
        case LogLevel::Info: prefix = ""; break;
    }
    const std::string line = fmt::format("ferry: {}{}\n", prefix, message);
    std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace ferry::util
