// SPDX-License-Identifier: BSD-2-Clause
// Tries the host's KVM once: a capability is a promise, and some hosts do not keep theirs.
#pragma once

#include "accel/kvm/kvm.h"
#include "util/result.h"

namespace ferry::kvm {

// Runs a guest of a few instructions in real mode in a VM of its own. An error when it does not do
// what it should; else the best way of logging dirty pages that told the truth about its writes.
Result<DirtyLogMode> probe_run(const Kvm& kvm);
// The same for the dirty ring that `kvm` has been told to use.
Result<> probe_dirty_ring(const Kvm& kvm);

}  // namespace ferry::kvm
