// SPDX-License-Identifier: BSD-2-Clause
// How far a migration is, for a person who watches.
#pragma once

#include <string>

#include "monitor/json.h"

namespace ferry::ferryctl {

// One line out of query-migrate's answer, without line end.
std::string progress_line(const monitor::Json& info);
// What is known when it is over.
std::string summary_text(const monitor::Json& info);

}  // namespace ferry::ferryctl
