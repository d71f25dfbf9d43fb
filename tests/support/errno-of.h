// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "util/result.h"

namespace ferry::test {

// 0: it worked.
template <typename T>
int errno_of(const Result<T>& result) {
    return result ? 0 : result.error().errnum();
}

}  // namespace ferry::test
