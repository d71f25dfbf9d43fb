// SPDX-License-Identifier: BSD-2-Clause
#include "util/size-text.h"

#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>

namespace ferry::util {

namespace {

std::optional<uint64_t> unit_of_suffix(char suffix) {
    constexpr std::string_view kSuffixes = "BKMGTPE";  // powers of 1024
    const char upper =
        suffix >= 'a' && suffix <= 'z' ? static_cast<char>(suffix - 'a' + 'A') : suffix;
    const size_t at = kSuffixes.find(upper);
    if (at == std::string_view::npos) return std::nullopt;
    return uint64_t{1} << (at * 10);
}

// Removes and returns ".NNN"'s digits, which may be none.
std::string_view take_fraction(std::string_view& text) {
    std::string_view digits = text.substr(1);
    digits = digits.substr(0, digits.find_first_not_of("0123456789"));
    text.remove_prefix(1 + digits.size());
    return digits;
}

}  // namespace

std::expected<uint64_t, int> parse_size_text(std::string_view text, uint64_t unit) {
    const bool hex = text.starts_with("0x") || text.starts_with("0X");
    if (hex) text.remove_prefix(2);
    uint64_t whole = 0;
    const char* const text_end = text.data() + text.size();
    const auto [end, status] = std::from_chars(text.data(), text_end, whole, hex ? 16 : 10);
    if (status == std::errc::result_out_of_range) return std::unexpected(ERANGE);
    if (status != std::errc()) return std::unexpected(EINVAL);
    text = std::string_view(end, static_cast<size_t>(text_end - end));
    if (hex && !text.empty()) return std::unexpected(EINVAL);

    std::string_view fraction;
    if (text.starts_with('.')) {
        fraction = take_fraction(text);
        if (fraction.empty()) return std::unexpected(EINVAL);
    }
    if (!text.empty()) {
        const std::optional<uint64_t> named = unit_of_suffix(text.front());
        if (text.size() != 1 || !named) return std::unexpected(EINVAL);
        unit = *named;
    }
    if (unit == 1 && !fraction.empty()) return std::unexpected(EINVAL);
    if (whole > std::numeric_limits<uint64_t>::max() / unit) return std::unexpected(ERANGE);
    // From the last digit to the first, so that every step is exact and fits.
    uint64_t part = 0;
    for (auto digit = fraction.rbegin(); digit != fraction.rend(); ++digit) {
        part = (static_cast<uint64_t>(*digit - '0') * unit + part) / 10;
    }
    return whole * unit + part;
}

}  // namespace ferry::util
