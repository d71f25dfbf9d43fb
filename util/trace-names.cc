// SPDX-License-Identifier: BSD-2-Clause
#include "trace-points.h"
#include "util/trace.h"

namespace ferry::util {

std::span<const std::string_view> trace_event_names() {
    return trace::kEventNames;
}

}  // namespace ferry::util
