// SPDX-License-Identifier: BSD-2-Clause
#include "migration/global-state.h"

#include <algorithm>
#include <string>

#include "util/try.h"

namespace ferry::migration {

void GlobalState::store(system::RunState state, bool sleeps) {
    stored_ = state;
    const std::string_view name = system::to_string(state);
    name_.fill(std::byte{0});
    std::ranges::copy(bytes_of(name), name_.begin());
    size_ = static_cast<uint32_t>(name.size() + 1);
    has_was_suspended_ = 1;
    was_suspended_ = sleeps || state == system::RunState::Suspended ? 1 : 0;
}

Result<> GlobalState::parse() {
    const auto end = std::ranges::find(name_, std::byte{0});
    if (end == name_.end() || size_ > name_.size()) {
        return make_error(ErrorKind::Protocol, "globalstate: run state name of {} bytes", size_);
    }
    const std::string name(reinterpret_cast<const char*>(name_.data()),
                           static_cast<size_t>(end - name_.begin()));
    MIG_TRY(loaded_, system::run_state_from_name(name), "globalstate");
    // A sender that does not know the second field leaves the first one zero.
    const bool told = has_was_suspended_ != 0 && was_suspended_ != 0;
    loaded_sleeps_ = told || loaded_ == system::RunState::Suspended;
    return {};
}

bool GlobalState::needed() const {
    return sent_ == Sent::Always ||
           (stored_ != system::RunState::Running && stored_ != system::RunState::Paused) ||
           was_suspended_ != 0;
}

const VMStateDescription& GlobalState::description() {
    static const VMStateDescription kDescription =
        VMState<GlobalState>("globalstate", 1, 1)
            .field("size", &GlobalState::size_)
            .buffer("runstate", &GlobalState::name_)
            .field("has_vm_was_suspended", &GlobalState::has_was_suspended_)
            .field("vm_was_suspended", &GlobalState::was_suspended_)
            .unused(66)
            .needed([](const GlobalState& state) { return state.needed(); })
            .post_load([](GlobalState& state, uint32_t) { return state.parse(); })
            .build();
    return kDescription;
}

}  // namespace ferry::migration
