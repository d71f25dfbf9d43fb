// SPDX-License-Identifier: BSD-2-Clause
// What the kernel appends to an answer: capabilities, each with the place of the next one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "util/bytes.h"
#include "util/result.h"

namespace ferry::vfio {

struct Capability {
    uint16_t id;
    ConstBytes bytes;  // from its header to the next one, or to the end
};

inline constexpr unsigned kMaxCapabilityHops = 64;

// `info`: the whole answer, its fixed part `fixed_bytes` long; `first`: where the chain begins, 0
// for none. Every offset is checked: Protocol where one leads back or out of the answer, the name
// of which is `what`.
Result<std::vector<Capability>> parse_capability_chain(ConstBytes info, size_t fixed_bytes,
                                                       uint32_t first, std::string_view what);

}  // namespace ferry::vfio
