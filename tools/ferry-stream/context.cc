// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/context.h"

#include "migration/stream.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

Node* Context::add(Node& parent, Node child) {
    if (nodes_ == kMaxNodes) {
        ++omitted_;
        return nullptr;
    }
    ++nodes_;
    return &parent.add(std::move(child));
}

Result<bool> Context::at_footer(uint32_t id) {
    constexpr auto kMark = std::byte{static_cast<uint8_t>(migration::Element::SectionFooter)};
    MIG_TRY(const ConstBytes next, in.peek(1 + sizeof(id)));
    return next.size() == 1 + sizeof(id) && next[0] == kMark && util::load_be32(&next[1]) == id;
}

}  // namespace ferry::stream_tool
