// SPDX-License-Identifier: BSD-2-Clause
// Addresses that name a descriptor which a management program handed over: fd:NAME and paths
// /dev/fdset/N. The descriptor is taken on the main loop thread, the channel made where it is used.
#pragma once

#include <functional>
#include <memory>

#include "migration/channel.h"

namespace ferry::migration {

using MakeChannel = std::move_only_function<Result<std::unique_ptr<MigrationChannel>>()>;

// Empty for an address of any other kind.
Result<MakeChannel> from_handed_fd(const MigrationAddress& address, FdTable& fds, FdUse use);

}  // namespace ferry::migration
