// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/findings.h"

namespace ferry::stream_tool {

void Findings::add(Problem problem) {
    if (too_many()) return;
    if (problem.severity == Severity::Problem) {
        ++problems_;
    } else if (all_.size() - problems_ == kMaxNotes) {
        ++notes_left_out_;
        return;
    }
    all_.push_back(std::move(problem));
}

void Findings::forget_since(size_t mark) {
    while (all_.size() > mark) {
        if (all_.back().severity == Severity::Problem) --problems_;
        all_.pop_back();
    }
}

}  // namespace ferry::stream_tool
