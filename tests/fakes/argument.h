// SPDX-License-Identifier: BSD-2-Clause
// The argument of an ioctl as the kernel sees it: bytes at any address.
#pragma once

#include <cstring>

namespace ferry::test {

template <typename Struct>
Struct load(const void* from) {
    Struct value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

template <typename Struct>
void store(void* to, const Struct& value) {
    std::memcpy(to, &value, sizeof(value));
}

}  // namespace ferry::test
