// SPDX-License-Identifier: BSD-2-Clause
// The workloads of a VM (-object ferry-workload): its stand-in for CPUs, and part of its state.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "accel/qtest/workload.h"
#include "migration/savevm.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// Main loop thread.
class Workloads {
 public:
    Result<> create(const std::vector<WorkloadOptions>& options, system::GuestMemory& memory,
                    util::Env& env, migration::SaveVMRegistry& registry);

    system::VcpuControl& vcpus() { return vcpus_; }
    qtest::Workload* find(std::string_view id) const;
    std::vector<qtest::Workload*> all() const;

 private:
    // The form in which a workload migrates: section "ID/ferry-workload".
    struct State {
        uint64_t position = 0, pages_per_second = 0, working_set = 0, offset = 0, seed = 0;
        uint8_t order = 0, fill = 0;
        std::unique_ptr<qtest::Workload> workload;
        util::Registration registration;
    };
    static const migration::VMStateDescription& vmstate();

    std::vector<std::unique_ptr<State>> states_;
    qtest::WorkloadVcpus vcpus_;
};

}  // namespace ferry::vmm
