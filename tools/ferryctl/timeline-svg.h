// SPDX-License-Identifier: BSD-2-Clause
// The pause as a picture: one line per device and step, time from left to right.
#pragma once

#include <string>

#include "tools/ferryctl/timeline.h"

namespace ferry::ferryctl {

// A whole SVG document that needs nothing else. `title` stands above the picture.
std::string pause_svg(const Pause& pause, const std::string& title);

}  // namespace ferry::ferryctl
