// SPDX-License-Identifier: BSD-2-Clause
// What the pause of a migration was spent on: a table with one row per device and step, and a bar
// that shows when.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "monitor/json.h"

namespace ferry::ferryctl {

struct Step {
    std::string who;
    std::string step;
    int64_t begin_ns = 0;
    int64_t end_ns = 0;
    uint64_t bytes = 0;
};

// query-migrate's x-timeline; entries that make no sense are left out.
std::vector<Step> steps_from_json(const monitor::Json& timeline);

// Only what lies in the pause (partly: cut), by time. The source's pause begins when it stops the
// VM. The destination shares the clock if it runs on the same host; else its part has a zero of its
// own.
struct Pause {
    std::vector<Step> source;
    std::vector<Step> destination;
    int64_t source_zero_ns = 0;
    int64_t destination_zero_ns = 0;
    enum class Clocks : uint8_t { Shared, Separate } clocks = Clocks::Shared;
};
Pause find_pause(std::vector<Step> source, std::vector<Step> destination);

// The phases of the source's VM up to the pause and that as a whole, with times and bytes. Empty
// when nothing is known.
std::string phases_text(const std::vector<Step>& source, const Pause& pause);

// `columns`: of the terminal; the bars take what the text leaves. Empty when nothing is known.
std::string pause_text(const Pause& pause, size_t columns);

// The same for programs: {length-ms, clocks, steps: [{side, device, step, begin-ms, length-ms,
// bytes}]}.
monitor::Json pause_json(const Pause& pause);

// One step of either side, with its begin counted from the zero of its side.
struct PauseRow {
    std::string side;
    const Step* step;
    int64_t begin_ns;  // in the pause
    int64_t end_ns;
};
std::vector<PauseRow> pause_rows(const Pause& pause);
int64_t pause_length_ns(const std::vector<PauseRow>& rows);  // at least 1

std::string bytes_text(uint64_t bytes);  // "1.5 MiB"

}  // namespace ferry::ferryctl
