// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "util/bytes.h"

namespace ferry::migration {

// Whether a guest page holds nothing but zeros. `page` is system::kPageSize bytes. The guest may
// write to it meanwhile: the answer is then about some moment of the call.
bool is_zero_page(ConstBytes page);

}  // namespace ferry::migration
