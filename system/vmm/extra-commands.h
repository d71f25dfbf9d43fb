// SPDX-License-Identifier: BSD-2-Clause
// Commands that QEMU does not have: what tests need of the workload, the software device and the
// board. Their names begin with x-.
#pragma once

#include "monitor/command.h"

namespace ferry::vmm {

class Vm;

void add_extra_commands(monitor::CommandTable& table, Vm& vm);

}  // namespace ferry::vmm
