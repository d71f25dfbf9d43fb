// SPDX-License-Identifier: BSD-2-Clause
// Sections carry no length. Where a body's grammar is unknown, its end is guessed: the next footer
// of this section behind which something follows that can follow a section.
#pragma once

#include <functional>

#include "tools/ferry-stream/input.h"

namespace ferry::stream_tool {

// Whether PART and END of such a section may come.
using IsStarted = std::function<bool(uint32_t section_id)>;

// Moves forward to `before` (bytes that end the body, may be none) and the footer behind it; the
// cursor then stands at `before`. At most `max_bytes` ahead. False: there is none, and the cursor
// stands somewhere behind.
Result<bool> find_footer(Cursor& in, uint32_t id, ConstBytes before, uint64_t max_bytes,
                         const IsStarted& started);

// Whether an element can begin with these bytes, which may be cut off by the end of the stream.
bool plausible_element(ConstBytes bytes, const IsStarted& started);

}  // namespace ferry::stream_tool
