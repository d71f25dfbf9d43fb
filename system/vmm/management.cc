// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/management.h"

#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

Management::Management(Vm& vm, std::unique_ptr<util::Worker> worker)
    : vm_(vm),
      objects_(vm.options(), vm.devices().iommufds()),
      worker_(std::move(worker)),
      dirty_rate_({.loop = vm.loop(),
                   .env = vm.env(),
                   .memory = vm.board().memory(),
                   .cpu_writes = vm.cpu_writes(),
                   .log = vm.has_dirty_rings() ? DirtyRate::Parts::Log::Ring
                                               : DirtyRate::Parts::Log::Bitmap},
                  *worker_) {}

Result<std::unique_ptr<Management>> Management::create(Vm& vm, monitor::CommandTable& table) {
    MIG_TRY(auto worker, util::Worker::create("management"));
    std::unique_ptr<Management> management(new Management(vm, std::move(worker)));
    add_object_commands(table, *management);
    add_device_commands(table, *management);
    add_dirty_rate_commands(table, *management);
    return management;
}

}  // namespace ferry::vmm
