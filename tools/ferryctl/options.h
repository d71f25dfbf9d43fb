// SPDX-License-Identifier: BSD-2-Clause
// ferryctl's command line.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/result.h"

namespace ferry::ferryctl {

enum class Action : uint8_t {
    Help,
    Version,
    Status,
    Stop,
    Cont,
    Quit,
    QueryMigrate,
    Info,
    Cancel,
    Set,
    Qmp,
    Migrate,
};
enum class Format : uint8_t { Text, Json };
enum class Progress : uint8_t { Shown, Hidden };

struct Options {
    Action action = Action::Help;
    Format format = Format::Text;
    std::string socket;    // -s
    std::string argument;  // of qmp: the request; of migrate: the URI; of set: NAME=VALUE
    // migrate
    Progress progress = Progress::Shown;
    std::optional<std::string> destination;  // the destination's socket
    std::optional<std::string> svg;          // where the picture of the pause goes
    std::vector<std::string> capabilities;
    std::vector<std::pair<std::string, std::string>> parameters;  // names and texts, in order
};

// An Error's text is for the person; the exit status is then 2.
Result<Options> parse_options(std::span<const std::string> arguments);
std::string_view help_text();

}  // namespace ferry::ferryctl
