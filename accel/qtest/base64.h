// SPDX-License-Identifier: BSD-2-Clause
// RFC 4648, section 4, with padding.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/bytes.h"

namespace ferry::qtest {

std::string base64_encode(ConstBytes bytes);
std::optional<std::vector<std::byte>> base64_decode(std::string_view text);

}  // namespace ferry::qtest
