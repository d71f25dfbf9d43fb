// SPDX-License-Identifier: BSD-2-Clause
#include "util/tcp-port.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>

#include "util/try.h"

namespace ferry::util {

Result<> check_tcp_port(std::string_view text) {
    const auto is_letter = [](unsigned char c) { return std::isalpha(c) != 0; };
    if (std::ranges::any_of(text, is_letter)) return {};
    uint16_t port = 0;
    const char* const last = text.data() + text.size();
    const auto [end, status] = std::from_chars(text.data(), last, port);
    if (status == std::errc() && end == last) return {};
    return make_error(ErrorKind::InvalidArgument, "port '{}' is not a number from 0 to 65535",
                      text);
}

}  // namespace ferry::util
