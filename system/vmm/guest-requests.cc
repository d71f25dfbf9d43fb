// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/guest-requests.h"

#include "util/try.h"

namespace ferry::vmm {

const migration::VMStateDescription& GuestRequests::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-guest-request", 1, 1)
            .field("pending", &State::pending)
            .pre_save([](State& state) {
                state.pending = static_cast<uint8_t>(state.owner->pending_.load());
            })
            .post_load([](State& state, uint32_t) -> Result<> {
                if (state.pending > static_cast<uint8_t>(GuestRequest::Suspend)) {
                    return make_error(ErrorKind::Protocol, "unknown request {} of the guest",
                                      state.pending);
                }
                // Served when the VM starts.
                state.owner->pending_ = static_cast<GuestRequest>(state.pending);
                return {};
            })
            .build();
    return kDescription;
}

}  // namespace ferry::vmm
