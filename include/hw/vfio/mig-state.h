// SPDX-License-Identifier: BSD-2-Clause
// The VFIO migration states, the arcs between them, and the paths a request takes.
// Values and prose: <linux/vfio.h>, enum vfio_device_mig_state.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace ferry::vfio {

enum class MigState : uint32_t {
    Error = 0,
    Stop = 1,
    Running = 2,
    StopCopy = 3,
    Resuming = 4,
    RunningP2P = 5,
    PreCopy = 6,
    PreCopyP2P = 7,
};
inline constexpr uint32_t kMigStateCount = 8;
std::string_view to_string(MigState state);  // QMP's: "pre-copy-p2p"; "error" is never emitted
Result<MigState> mig_state_from_raw(uint32_t raw);
std::optional<MigState> mig_state_from_name(std::string_view name);  // as to_string() spells it

// VFIO_MIGRATION_STOP_COPY / _P2P / _PRE_COPY as the device reports them.
struct MigCaps {
    bool stop_copy = false;
    bool p2p = false;
    bool pre_copy = false;
    bool supported() const { return stop_copy; }
    friend bool operator==(const MigCaps&, const MigCaps&) = default;
};

bool state_exists(MigCaps caps, MigState state);
// States of one data session: PreCopy, PreCopyP2P, StopCopy / Resuming / none.
enum class SessionKind : uint8_t { None, Saving, Resuming };
SessionKind session_of(MigState state);
// The elementary arcs that lead from `from` to `to`, states after each step; empty when equal.
// InvalidArgument where the kernel says EINVAL (blocked arc, missing state, out of ERROR).
Result<std::vector<MigState>> mig_path(MigCaps caps, MigState from, MigState to);

}  // namespace ferry::vfio
