// SPDX-License-Identifier: BSD-2-Clause
// A program's command line as words and options: "--name=value", "--name value", "-n value".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "util/result.h"

namespace ferry::util {

class ArgumentReader {
 public:
    // Without the program's name; must outlive the reader.
    explicit ArgumentReader(std::span<const std::string> arguments) : rest_(arguments) {}

    struct Item {
        enum class Kind : uint8_t { Word, Option } kind;  // "-" is a word
        std::string text;                                 // an option's name with its dashes
    };
    // Nothing at the end.
    std::optional<Item> next();
    // Of the option that next() has given. InvalidArgument: there is none.
    Result<std::string> value();
    // Once the option has been dealt with: InvalidArgument if it has a value that nobody took.
    Result<> end_option();

 private:
    std::string take();

    std::span<const std::string> rest_;
    std::string option_;
    std::optional<std::string> inline_value_;
};

}  // namespace ferry::util
