// SPDX-License-Identifier: BSD-2-Clause
// Ports of TCP as people write them: a number, or the name of a service.
#pragma once

#include <string_view>

#include "util/result.h"

namespace ferry::util {

// An Error naming a text that is neither a number from 0 to 65535 nor could be a service's name
// (those have a letter): getaddrinfo() takes such numbers modulo 65536.
Result<> check_tcp_port(std::string_view text);

}  // namespace ferry::util
