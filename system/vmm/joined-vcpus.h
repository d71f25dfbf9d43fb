// SPDX-License-Identifier: BSD-2-Clause
// Several things that run while the VM runs, as one: the guest's CPUs and workloads.
#pragma once

#include <memory>
#include <vector>

#include "system/runstate.h"
#include "system/vmm/gathering.h"
#include "system/vmm/guest-requests.h"
#include "util/try.h"

namespace ferry::vmm {

// Main loop thread.
class JoinedVcpus final : public system::VcpuControl {
 public:
    JoinedVcpus(system::MainLoop& loop, const system::RunStateController& runstate,
                GuestRequests& requests)
        : loop_(loop), runstate_(runstate), requests_(requests) {}
    void add(system::VcpuControl& part) { parts_.push_back(&part); }

    void pause(system::Done done) override {
        if (parts_.empty()) return done({});
        const auto all = std::make_shared<Gathering>(loop_, parts_.size(), std::move(done));
        for (system::VcpuControl* part : parts_) {
            part->pause([all](Result<> result) { all->part_done(std::move(result)); });
        }
    }
    // Not while the guest is suspended, or waits for what it has asked for.
    void resume() override {
        if (runstate_.state() == system::RunState::Suspended) return;
        if (requests_.pending()) return requests_.post();
        for (system::VcpuControl* part : parts_) part->resume();
    }
    Result<> set_throttle(unsigned percent) override {
        for (system::VcpuControl* part : parts_) MIG_CHECK(part->set_throttle(percent));
        return {};
    }

 private:
    system::MainLoop& loop_;
    const system::RunStateController& runstate_;
    GuestRequests& requests_;
    std::vector<system::VcpuControl*> parts_;
};

}  // namespace ferry::vmm
