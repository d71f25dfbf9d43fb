// SPDX-License-Identifier: BSD-2-Clause
// What management programs ask of a VM beyond running and migrating it: its objects and devices,
// what is on the bus, how fast memory gets dirty. QMP's commands for that, and what they keep.
#pragma once

#include <memory>

#include "monitor/command.h"
#include "system/vmm/dirty-rate.h"
#include "system/vmm/objects.h"
#include "util/thread.h"

namespace ferry::vmm {

class Vm;

// Main loop thread.
class Management {
 public:
    // `vm` and `table` outlive this; `vm` has been created.
    static Result<std::unique_ptr<Management>> create(Vm& vm, monitor::CommandTable& table);

    Vm& vm() { return vm_; }
    Objects& objects() { return objects_; }
    DirtyRate& dirty_rate() { return dirty_rate_; }
    // For what may wait for a driver or takes long. Its jobs may use the VM's thread-safe parts.
    util::Worker& worker() { return *worker_; }

 private:
    Management(Vm& vm, std::unique_ptr<util::Worker> worker);

    Vm& vm_;
    Objects objects_;
    std::unique_ptr<util::Worker> worker_;
    DirtyRate dirty_rate_;
};

// object-add, object-del, qom-list, qom-get, qom-set, query-memdev.
void add_object_commands(monitor::CommandTable& table, Management& management);
// device_add, query-pci.
void add_device_commands(monitor::CommandTable& table, Management& management);
// calc-dirty-rate and its kin, and the limits that need a dirty ring.
void add_dirty_rate_commands(monitor::CommandTable& table, Management& management);

}  // namespace ferry::vmm
