// SPDX-License-Identifier: BSD-2-Clause
// Rare messages for people. The embedder decides where they go.
#pragma once

#include <cstdint>
#include <string_view>

namespace ferry::util {

enum class LogLevel : uint8_t { Error, Warning, Info };

// Thread-safe: any thread may log.
class Logger {
 public:
    virtual ~Logger() = default;
    virtual void log(LogLevel level, std::string_view message) = 0;
};

// "ferry: warning: ..." on stderr.
class StderrLogger final : public Logger {
 public:
    void log(LogLevel level, std::string_view message) override;
};

}  // namespace ferry::util
