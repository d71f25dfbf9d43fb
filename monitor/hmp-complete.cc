// SPDX-License-Identifier: BSD-2-Clause
// What a person who has begun a word may want.
#include <algorithm>
#include <string>
#include <vector>

#include "migration/capabilities.h"
#include "monitor/hmp.h"
#include "monitor/settings.h"

namespace ferry::monitor {

namespace {

using Words = std::vector<std::string>;

// The last one is what is being typed: empty behind a blank.
Words words_of(std::string_view line) {
    Words words{""};
    for (const char c : line) {
        if (c != ' ') {
            words.back() += c;
        } else if (!words.back().empty()) {
            words.emplace_back();
        }
    }
    return words;
}

Words names_of(const std::vector<HmpCommand>& commands) {
    Words names;
    for (const HmpCommand& command : commands) names.push_back(command.name);
    return names;
}

Words capability_names() {
    Words names;
    for (size_t i = 0; i < migration::kCapabilityCount; ++i) {
        names.emplace_back(migration::to_string(static_cast<migration::Capability>(i)));
    }
    return names;
}

Words parameter_names() {
    Words names;
    for (const ParameterShape& shape : parameter_shapes()) names.emplace_back(shape.name);
    return names;
}

// Of the commands whose arguments are names out of a list.
Words arguments_of(const std::string& command, size_t position) {
    if (command == "migrate_set_capability") {
        return position == 1 ? capability_names() : Words{"off", "on"};
    }
    if (command == "migrate_set_parameter" && position == 1) return parameter_names();
    return {};
}

}  // namespace

std::vector<std::string> Hmp::complete(std::string_view line) const {
    const Words words = words_of(line);
    const size_t position = words.size() - 1;
    Words candidates;
    if (position == 0) {
        candidates = names_of(commands_);
    } else if (position == 1 && words[0] == "info") {
        candidates = names_of(infos_);
    } else if (position == 1 && (words[0] == "help" || words[0] == "?")) {
        candidates = names_of(commands_);
    } else {
        candidates = arguments_of(words[0], position);
    }
    std::erase_if(candidates,
                  [&](const std::string& name) { return !name.starts_with(words.back()); });
    std::ranges::sort(candidates);
    return candidates;
}

}  // namespace ferry::monitor
