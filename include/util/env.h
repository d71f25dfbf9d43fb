// SPDX-License-Identifier: BSD-2-Clause
// What every part of one VM needs from its surroundings. The embedder creates it before the VM and
// keeps it until after. Passed by reference instead of globals: a process may hold several VMs.
#pragma once

#include "util/activity.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/timeline.h"
#include "util/trace.h"

namespace ferry::util {

struct Env {
    Clock& clock;
    Logger& log;
    Tracer& trace;
    Timeline& timeline;
    ActivityBoard& activity;
};

}  // namespace ferry::util
