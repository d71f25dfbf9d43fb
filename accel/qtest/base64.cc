// SPDX-License-Identifier: BSD-2-Clause
#include "accel/qtest/base64.h"

#include <cstdint>

namespace ferry::qtest {

namespace {
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr size_t kGroupBytes = 3;
constexpr size_t kGroupDigits = 4;
constexpr unsigned kDigitBits = 6;
}  // namespace

std::string base64_encode(ConstBytes bytes) {
    std::string text;
    text.reserve((bytes.size() + kGroupBytes - 1) / kGroupBytes * kGroupDigits);
    for (size_t i = 0; i < bytes.size(); i += kGroupBytes) {
        const size_t present = std::min(kGroupBytes, bytes.size() - i);
        uint32_t group = 0;
        for (size_t j = 0; j < kGroupBytes; ++j) {
            group = group << 8 | (j < present ? std::to_integer<uint32_t>(bytes[i + j]) : 0);
        }
        for (size_t j = 0; j < kGroupDigits; ++j) {
            const unsigned shift = kDigitBits * static_cast<unsigned>(kGroupDigits - 1 - j);
            text.push_back(j <= present ? kAlphabet[group >> shift & 0x3f] : '=');
        }
    }
    return text;
}

std::optional<std::vector<std::byte>> base64_decode(std::string_view text) {
    if (text.size() % kGroupDigits != 0) return std::nullopt;
    size_t padding = 0;
    while (padding < 2 && text.ends_with('=')) {
        text.remove_suffix(1);
        ++padding;
    }
    std::vector<std::byte> bytes;
    bytes.reserve(text.size() / kGroupDigits * kGroupBytes + kGroupBytes);
    uint32_t group = 0;
    unsigned bits = 0;
    for (const char c : text) {
        const size_t digit = kAlphabet.find(c);
        if (digit == std::string_view::npos) return std::nullopt;
        group = group << kDigitBits | static_cast<uint32_t>(digit);
        bits += kDigitBits;
        if (bits >= 8) {
            bits -= 8;
            bytes.push_back(static_cast<std::byte>(group >> bits));
        }
    }
    return bytes;
}

}  // namespace ferry::qtest
