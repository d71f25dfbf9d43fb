// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/sub-options.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "util/size-text.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

// The parts between single commas, with ",," undone. A trailing comma adds no part.
std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> parts;
    std::string part;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            part += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            part += ',';
            ++i;
        } else {
            parts.push_back(std::move(part));
            part.clear();
        }
    }
    if (!part.empty()) parts.push_back(std::move(part));
    return parts;
}

}  // namespace

Result<uint64_t> parse_number(std::string_view text) {
    std::string_view digits = text;
    int base = 10;
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
        digits.remove_prefix(2);
        base = 16;
    }
    uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size()) {
        return make_error(ErrorKind::InvalidArgument, "'{}' is not a number", text);
    }
    return value;
}

Result<uint64_t> parse_size(std::string_view text, uint64_t unit) {
    if (const auto bytes = util::parse_size_text(text, unit)) return *bytes;
    return make_error(ErrorKind::InvalidArgument,
                      "'{}' is not a size; expecting a number and perhaps k, M, G or T", text);
}

Result<bool> parse_bool(std::string_view text) {
    constexpr std::array<std::string_view, 4> kTrue = {"on", "yes", "true", "y"};
    constexpr std::array<std::string_view, 4> kFalse = {"off", "no", "false", "n"};
    if (std::ranges::find(kTrue, text) != kTrue.end()) return true;
    if (std::ranges::find(kFalse, text) != kFalse.end()) return false;
    return make_error(ErrorKind::InvalidArgument, "'{}' is neither 'on' nor 'off'", text);
}

Result<SubOptions> SubOptions::parse(std::string context, std::string_view text,
                                     std::string_view implied_key) {
    SubOptions options;
    options.context_ = std::move(context);
    bool first = true;
    for (std::string& part : split(text)) {
        const bool implied = std::exchange(first, false) && !implied_key.empty();
        const size_t equals = part.find('=');
        if (equals != std::string::npos) {
            options.pairs_.push_back({part.substr(0, equals), part.substr(equals + 1)});
        } else if (implied) {
            // "-machine ,key=value": nothing in front of the first comma says nothing.
            if (!part.empty()) options.pairs_.push_back({std::string(implied_key), part});
        } else if (part.empty()) {
            return make_error(ErrorKind::InvalidArgument, "{}: nothing before a comma",
                              options.context_);
        } else if (part.starts_with("no")) {
            options.pairs_.push_back({part.substr(2), "off"});
        } else {
            options.pairs_.push_back({std::move(part), "on"});
        }
    }
    return options;
}

bool SubOptions::has(std::string_view key) const {
    return std::ranges::find(pairs_, key, &Pair::key) != pairs_.end();
}

void SubOptions::merge(SubOptions later) {
    std::ranges::move(later.pairs_, std::back_inserter(pairs_));
}

std::optional<std::string> SubOptions::take(std::string_view key) {
    std::optional<std::string> value;
    std::erase_if(pairs_, [&](Pair& pair) {
        if (pair.key != key) return false;
        value = std::move(pair.value);
        return true;
    });
    return value;
}

Result<std::string> SubOptions::take_required(std::string_view key) {
    auto value = take(key);
    if (!value) {
        return make_error(ErrorKind::InvalidArgument, "{}: Parameter '{}' is missing", context_,
                          key);
    }
    return std::move(*value);
}

Result<Switch> SubOptions::take_switch(std::string_view key) {
    const auto text = take(key);
    if (!text) return Switch::Unset;
    MIG_TRY(const bool on, parse_bool(*text), "{}: {}", context_, key);
    return on ? Switch::On : Switch::Off;
}

Result<std::optional<uint64_t>> SubOptions::take_size(std::string_view key, uint64_t unit) {
    const auto text = take(key);
    if (!text) return std::optional<uint64_t>();
    MIG_TRY(const uint64_t value, parse_size(*text, unit), "{}: {}", context_, key);
    return std::optional(value);
}

Result<std::optional<uint64_t>> SubOptions::take_number(std::string_view key) {
    const auto text = take(key);
    if (!text) return std::optional<uint64_t>();
    MIG_TRY(const uint64_t value, parse_number(*text), "{}: {}", context_, key);
    return std::optional(value);
}

std::vector<SubOptions::Pair> SubOptions::take_rest() {
    return std::exchange(pairs_, {});
}

Result<> SubOptions::finish() const {
    if (pairs_.empty()) return {};
    return make_error(ErrorKind::InvalidArgument, "{}: Invalid parameter '{}'", context_,
                      pairs_.front().key);
}

}  // namespace ferry::vmm
