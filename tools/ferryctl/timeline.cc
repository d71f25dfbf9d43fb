// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace ferry::ferryctl {

namespace {

using monitor::Json;

constexpr double kNsPerMs = 1e6;

bool is_span(const Json& entry) {
    return entry.is_object() && entry.contains("who") && entry["who"].is_string() &&
           entry.contains("step") && entry["step"].is_string() && entry.contains("begin-ns") &&
           entry["begin-ns"].is_number_integer() && entry.contains("end-ns") &&
           entry["end-ns"].is_number_integer();
}

int64_t first_begin(const std::vector<Step>& steps) {
    int64_t first = std::numeric_limits<int64_t>::max();
    for (const Step& step : steps) first = std::min(first, step.begin_ns);
    return steps.empty() ? 0 : first;
}

int64_t last_end(const std::vector<Step>& steps) {
    int64_t last = std::numeric_limits<int64_t>::min();
    for (const Step& step : steps) last = std::max(last, step.end_ns);
    return steps.empty() ? 0 : last;
}

// The VM may have been stopped before, by a person or an attempt that was taken back.
int64_t last_stop(const std::vector<Step>& steps) {
    int64_t begin = first_begin(steps);
    for (const Step& step : steps) {
        if (step.who == "vm" && step.step == "stop") begin = step.begin_ns;
    }
    return begin;
}

// Loading goes on from the first byte of the stream; the end of it is what others wait for.
int64_t destination_alone_zero(const std::vector<Step>& steps) {
    int64_t zero = std::numeric_limits<int64_t>::max();
    for (const Step& step : steps) {
        if (step.step != "load") zero = std::min(zero, step.begin_ns);
    }
    return zero == std::numeric_limits<int64_t>::max() ? first_begin(steps) : zero;
}

std::vector<Step> cut_before(std::vector<Step> steps, int64_t zero) {
    std::erase_if(steps,
                  [zero](const Step& step) { return step.begin_ns < zero && step.end_ns <= zero; });
    for (Step& step : steps) step.begin_ns = std::max(step.begin_ns, zero);
    std::ranges::stable_sort(steps, {}, &Step::begin_ns);
    return steps;
}

std::string bar(const PauseRow& row, int64_t length, size_t width) {
    const auto cell = [&](int64_t at) {
        const double share = static_cast<double>(at) / static_cast<double>(length);
        return static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
    };
    const size_t from = std::min(cell(row.begin_ns), width - 1);
    const size_t to = std::max(cell(row.end_ns), from + 1);  // something of each is seen
    return std::string(from, ' ') + std::string(to - from, '#') + std::string(width - to, ' ');
}

std::string side_text(const std::vector<PauseRow>& rows, int64_t length, size_t columns) {
    size_t who = 6;   // "device"
    size_t step = 4;  // "step"
    for (const PauseRow& row : rows) {
        who = std::max(who, row.step->who.size());
        step = std::max(step, row.step->step.size());
    }
    std::string out = fmt::format("{:<11}  {:<{}}  {:<{}}  {:>9}  {:>9}  {:>10}\n", "side",
                                  "device", who, "step", step, "begin ms", "length ms", "bytes");
    constexpr size_t kMinBar = 10;
    const size_t text_width = out.size() - 1 + 4;
    const size_t width = columns > text_width + kMinBar ? columns - text_width : kMinBar;
    for (const PauseRow& row : rows) {
        const double begin = static_cast<double>(row.begin_ns) / kNsPerMs;
        const double lasted = static_cast<double>(row.end_ns - row.begin_ns) / kNsPerMs;
        out += fmt::format("{:<11}  {:<{}}  {:<{}}  {:>9.2f}  {:>9.2f}  {:>10}  |{}|\n", row.side,
                           row.step->who, who, row.step->step, step, begin, lasted,
                           row.step->bytes == 0 ? "" : bytes_text(row.step->bytes),
                           bar(row, length, width));
    }
    return out;
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
    constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    auto value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::vector<Step> steps_from_json(const Json& timeline) {
    std::vector<Step> steps;
    if (!timeline.is_array()) return steps;
    for (const Json& entry : timeline) {
        if (!is_span(entry)) continue;
        Step step{entry["who"].get<std::string>(), entry["step"].get<std::string>(),
                  entry["begin-ns"].get<int64_t>(), entry["end-ns"].get<int64_t>(), 0};
        if (entry.contains("bytes") && entry["bytes"].is_number_unsigned()) {
            step.bytes = entry["bytes"].get<uint64_t>();
        }
        if (step.end_ns >= step.begin_ns) steps.push_back(std::move(step));
    }
    return steps;
}

Pause find_pause(std::vector<Step> source, std::vector<Step> destination) {
    Pause pause;
    pause.source_zero_ns = last_stop(source);
    pause.destination_zero_ns = pause.source_zero_ns;
    // On one clock the destination's load overlaps what the source did.
    const bool overlap = first_begin(destination) <= last_end(source) &&
                         last_end(destination) >= first_begin(source);
    if (!destination.empty() && !(overlap && !source.empty())) {
        pause.clocks = Pause::Clocks::Separate;
        pause.destination_zero_ns = destination_alone_zero(destination);
    }
    pause.source = cut_before(std::move(source), pause.source_zero_ns);
    pause.destination = cut_before(std::move(destination), pause.destination_zero_ns);
    return pause;
}

std::vector<PauseRow> pause_rows(const Pause& pause) {
    std::vector<PauseRow> rows;
    const auto add = [&rows](const char* side, const std::vector<Step>& steps, int64_t zero) {
        for (const Step& step : steps) {
            rows.push_back({side, &step, step.begin_ns - zero, step.end_ns - zero});
        }
    };
    add("source", pause.source, pause.source_zero_ns);
    add("destination", pause.destination, pause.destination_zero_ns);
    return rows;
}

int64_t pause_length_ns(const std::vector<PauseRow>& rows) {
    int64_t length = 1;
    for (const PauseRow& row : rows) length = std::max(length, row.end_ns);
    return length;
}

monitor::Json pause_json(const Pause& pause) {
    const auto rows = pause_rows(pause);
    Json steps = Json::array();
    for (const PauseRow& row : rows) {
        steps.push_back({{"side", row.side},
                         {"device", row.step->who},
                         {"step", row.step->step},
                         {"begin-ms", static_cast<double>(row.begin_ns) / kNsPerMs},
                         {"length-ms", static_cast<double>(row.end_ns - row.begin_ns) / kNsPerMs},
                         {"bytes", row.step->bytes}});
    }
    const int64_t length = rows.empty() ? 0 : pause_length_ns(rows);
    return {{"length-ms", static_cast<double>(length) / kNsPerMs},
            {"clocks", pause.clocks == Pause::Clocks::Shared ? "shared" : "separate"},
            {"steps", std::move(steps)}};
}

std::string phases_text(const std::vector<Step>& source, const Pause& pause) {
    std::string out;
    const auto line = [&out](std::string_view phase, int64_t length_ns, uint64_t bytes) {
        out += fmt::format("{:<10}  {:>12.2f} ms  {:>10}\n", phase,
                           static_cast<double>(length_ns) / kNsPerMs, bytes_text(bytes));
    };
    for (const Step& step : source) {
        if (step.who != "vm" || step.begin_ns >= pause.source_zero_ns) continue;
        line(step.step, step.end_ns - step.begin_ns, step.bytes);
    }
    uint64_t paused_bytes = 0;
    for (const Step& step : pause.source) {
        if (step.who == "vm" && step.step == "save") paused_bytes += step.bytes;
    }
    const auto rows = pause_rows(pause);
    if (!rows.empty()) line("pause", pause_length_ns(rows), paused_bytes);
    return out.empty() ? out : "The phases:\n" + out;
}

std::string pause_text(const Pause& pause, size_t columns) {
    const auto rows = pause_rows(pause);
    const int64_t length = pause_length_ns(rows);
    if (rows.empty()) return "";
    std::string out =
        fmt::format("The pause, {:.2f} ms:\n", static_cast<double>(length) / kNsPerMs);
    out += side_text(rows, length, columns);
    if (pause.clocks == Pause::Clocks::Separate && !pause.source.empty()) {
        out += "The two ends have different clocks: each begins at a zero of its own.\n";
    }
    return out;
}

}  // namespace ferry::ferryctl
