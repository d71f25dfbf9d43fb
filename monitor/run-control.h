// SPDX-License-Identifier: BSD-2-Clause
// stop, cont and system_reset as commands: what each does depends on the run state it meets when
// its turn comes. The table is in docs/devel/run-state.rst. Main loop thread only.
#pragma once

#include "monitor/vm-control.h"

namespace ferry::monitor {

class RunControl {
 public:
    explicit RunControl(VmControl& vm) : vm_(vm) {}

    // `done` is called when the VM is where it was asked to be, or with the refusal.
    void stop(system::Done done) { vm_.runstate().user_stop(std::move(done)); }
    void cont(system::Done done) { vm_.runstate().user_cont(std::move(done)); }
    void reset(system::Done done);

 private:
    void reset_now(system::Done done);
    Result<> fresh();

    VmControl& vm_;
};

}  // namespace ferry::monitor
