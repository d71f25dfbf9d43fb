// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/capability-chain.h"

#include <cstring>

#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

Result<std::vector<Capability>> parse_capability_chain(ConstBytes info, size_t fixed_bytes,
                                                       uint32_t first, std::string_view what) {
    std::vector<Capability> chain;
    size_t before = fixed_bytes;  // where the next header may begin at the earliest
    size_t offset = first;
    for (unsigned hops = 0; offset != 0; ++hops) {
        if (hops == kMaxCapabilityHops) {
            return make_error(ErrorKind::Protocol,
                              "capability chain of the {}: more than {} entries", what, hops);
        }
        if (offset < before || offset > info.size() ||
            info.size() - offset < sizeof(uapi::CapHeader)) {
            return make_error(ErrorKind::Protocol,
                              "capability chain of the {}: entry at {:#x}, room is from {:#x} to "
                              "{:#x}",
                              what, offset, before, info.size());
        }
        uapi::CapHeader header;
        std::memcpy(&header, info.data() + offset, sizeof(header));
        before = offset + sizeof(header);
        // The next header, if it is a valid one, ends this capability.
        const size_t end =
            header.next >= before && header.next <= info.size() ? header.next : info.size();
        chain.push_back({header.id, info.subspan(offset, end - offset)});
        offset = header.next;
    }
    return chain;
}

}  // namespace ferry::vfio
