// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "tools/ferryctl/options.h"
#include "tools/ferryctl/qmp-link.h"
#include "tools/ferryctl/run.h"

namespace ferry::ferryctl {

// What a person wrote for a parameter: a number, possibly with a suffix, a switch, or text.
Json value_from_text(const std::string& text);

// Migrates and tells about it; an Error when the VM did not arrive.
Result<> migrate(const Options& options, QmpLink& source, Console& console);

}  // namespace ferry::ferryctl
