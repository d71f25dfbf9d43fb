// SPDX-License-Identifier: BSD-2-Clause
// The two spellings of "some bytes" used everywhere: no pointer + length pairs, no char*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ferry {

using ConstBytes = std::span<const std::byte>;
using MutBytes = std::span<std::byte>;

inline std::string_view text_of(ConstBytes bytes) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the only place for it
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline ConstBytes bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
}

}  // namespace ferry
