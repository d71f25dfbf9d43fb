// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/workloads.h"

#include "util/try.h"

namespace ferry::vmm {

const migration::VMStateDescription& Workloads::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("ferry-workload", 1, 1)
            .field("position", &State::position)
            .field("pages_per_second", &State::pages_per_second)
            .field("working_set", &State::working_set)
            .field("offset", &State::offset)
            .field("seed", &State::seed)
            .field("order", &State::order)
            .field("fill", &State::fill)
            .pre_save([](State& state) {
                const qtest::WorkloadState now = state.workload->state();
                state.position = now.position;
                state.pages_per_second = now.pages_per_second;
                state.working_set = now.working_set;
                state.offset = now.offset;
                state.seed = now.seed;
                state.order = static_cast<uint8_t>(now.order);
                state.fill = static_cast<uint8_t>(now.fill);
            })
            .post_load([](State& state, uint32_t) {
                return state.workload->restore({
                    .position = state.position,
                    .pages_per_second = state.pages_per_second,
                    .working_set = state.working_set,
                    .offset = state.offset,
                    .seed = state.seed,
                    .order = static_cast<qtest::Order>(state.order),
                    .fill = static_cast<qtest::Fill>(state.fill),
                });
            })
            .build();
    return kDescription;
}

Result<> Workloads::create(const std::vector<WorkloadOptions>& options, system::GuestMemory& memory,
                           util::Env& env, migration::SaveVMRegistry& registry) {
    for (const WorkloadOptions& option : options) {
        auto state = std::make_unique<State>();
        MIG_TRY(state->workload, qtest::Workload::create(option.id, option.state, memory, env));
        MIG_TRY(state->registration, registry.add_vmstate(option.id, vmstate(), state.get()));
        vcpus_.add(*state->workload);
        states_.push_back(std::move(state));
    }
    return {};
}

qtest::Workload* Workloads::find(std::string_view id) const {
    for (const auto& state : states_) {
        if (state->workload->id() == id) return state->workload.get();
    }
    return nullptr;
}

std::vector<qtest::Workload*> Workloads::all() const {
    std::vector<qtest::Workload*> workloads;
    for (const auto& state : states_) workloads.push_back(state->workload.get());
    return workloads;
}

}  // namespace ferry::vmm
