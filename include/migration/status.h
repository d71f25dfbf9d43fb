// SPDX-License-Identifier: BSD-2-Clause
// MigrationStatus, QMP's, and the one place that changes it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>

#include "util/env.h"
#include "util/result.h"

namespace ferry::migration {

enum class MigrationStatus : uint8_t {
    None,
    Setup,
    Cancelling,
    Cancelled,
    Active,
    Completed,
    Failed,
    PreSwitchover,
    Device,
};
std::string_view to_string(MigrationStatus status);
Result<MigrationStatus> status_from_name(std::string_view name);
// Blocks a second migration and changes of capabilities.
bool is_in_progress(MigrationStatus status);

enum class Role : uint8_t { Source, Destination };

// Thread-safe. A wrong arc is an Error naming both states, never a silent no-op.
class StatusMachine {
 public:
    using Listener = std::function<void(MigrationStatus)>;
    // `changed` is called on the changing thread with no lock held; a change by another thread
    // waits for it, so that all are told in order. It must be short and must not call advance().
    StatusMachine(Role role, util::Env& env, Listener changed);

    MigrationStatus get() const;
    // Refused (Cancelled when somebody cancelled meanwhile, else InvalidState) unless the arc
    // from the present status exists for this role.
    Result<> advance(MigrationStatus to);

 private:
    Role role_;
    util::Env& env_;
    Listener changed_;
    mutable std::mutex mutex_;
    std::condition_variable told_;
    enum class Telling : uint8_t { Nobody, Listener } telling_ = Telling::Nobody;
    MigrationStatus status_ = MigrationStatus::None;
};

}  // namespace ferry::migration
