// SPDX-License-Identifier: BSD-2-Clause
// Sizes as people write them.
#pragma once

#include <cstdint>
#include <expected>
#include <string_view>

namespace ferry::util {

// "4096", "0x1000", "64k", "1.5G": bytes. Without one of the suffixes B k M G T P E (powers of
// 1024, either case) multiples of `unit`, a power of two. A hexadecimal number has no suffix, and a
// number of bytes no fraction. EINVAL or ERANGE.
std::expected<uint64_t, int> parse_size_text(std::string_view text, uint64_t unit = 1);

}  // namespace ferry::util
