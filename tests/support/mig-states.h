// SPDX-License-Identifier: BSD-2-Clause
// The states of the migration protocol by their short names, and what devices can do, in the
// combinations that tests go through.
#pragma once

#include "hw/vfio/mig-state.h"

namespace ferry::test {

// All but MigState::Error, whose name is also that of a class.
namespace mig_states {
using vfio::MigState::PreCopy;
using vfio::MigState::PreCopyP2P;
using vfio::MigState::Resuming;
using vfio::MigState::Running;
using vfio::MigState::RunningP2P;
using vfio::MigState::Stop;
using vfio::MigState::StopCopy;
}  // namespace mig_states

inline constexpr vfio::MigCaps kPlain{.stop_copy = true};
inline constexpr vfio::MigCaps kP2P{.stop_copy = true, .p2p = true};
inline constexpr vfio::MigCaps kPreCopy{.stop_copy = true, .pre_copy = true};
inline constexpr vfio::MigCaps kAll{.stop_copy = true, .p2p = true, .pre_copy = true};

}  // namespace ferry::test
