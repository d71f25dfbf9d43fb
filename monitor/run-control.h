// SPDX-License-Identifier: BSD-2-Clause
// stop, cont and system_reset as commands: what each does depends on the run state it meets when
// its turn comes. The table is in docs/devel/run-state.rst. Main loop thread only.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "monitor/vm-control.h"

namespace ferry::monitor {

class RunControl {
 public:
    explicit RunControl(VmControl& vm) : vm_(vm) {}

    // `done` is called when the VM is where it was asked to be, or with the refusal.
    void stop(system::Done done);
    void cont(system::Done done);
    void reset(system::Done done);

 private:
    using Task = std::move_only_function<void()>;
    void behind_reset(Task task);
    void reset_when_idle(system::Done done);
    void reset_over(system::Done done, Result<> result);

    VmControl& vm_;
    enum class Reset : bool { None, Pending } reset_ = Reset::None;
    std::deque<Task> behind_reset_;  // in order of arrival over all monitors
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ferry::monitor
