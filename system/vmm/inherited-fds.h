// SPDX-License-Identifier: BSD-2-Clause
// Descriptors that the parent process left open, by their numbers.
#pragma once

#include <string>
#include <string_view>

#include "migration/channel.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vmm {

// From now on the caller's. An Error where no such descriptor is open.
Result<UniqueFd> take_inherited_fd(std::string_view number);

// What a client named by getfd, or the number of an inherited one.
Result<UniqueFd> take_named_or_inherited_fd(const std::string& name, migration::FdTable& named);

// For -incoming fd:N.
class InheritedFds final : public migration::FdTable {
 public:
    Result<UniqueFd> take_fd(std::string_view name) override;
    Result<UniqueFd> open_fd_set(std::string_view path, int flags) override;
};

}  // namespace ferry::vmm
