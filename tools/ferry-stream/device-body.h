// SPDX-License-Identifier: BSD-2-Clause
// The body of a device that is read by its description: fields, then subsections.
#pragma once

#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/description.h"

namespace ferry::stream_tool {

// One body. An Error: the bytes are not what the description says.
Result<> read_described_body(Context& context, const DescribedBody& body, Node& node);

}  // namespace ferry::stream_tool
