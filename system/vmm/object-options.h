// SPDX-License-Identifier: BSD-2-Clause
// The types of -object: memory backends and the workload.
#pragma once

#include <string>
#include <string_view>

#include "system/vmm/options.h"
#include "util/result.h"

namespace ferry::vmm {

Result<> add_object(Options& options, std::string_view type, SubOptions& properties);
// Of one type, or of all of them ("help").
Result<std::string> object_help(std::string_view type);

}  // namespace ferry::vmm
