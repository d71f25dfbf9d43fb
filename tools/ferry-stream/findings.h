// SPDX-License-Identifier: BSD-2-Clause
// Collects the problems of one reading. One thread at a time.
#pragma once

#include <fmt/format.h>

#include <vector>

#include "tools/ferry-stream/format.h"
#include "tools/ferry-stream/node.h"
#include "util/result.h"

namespace ferry::stream_tool {

class Findings {
 public:
    template <typename... Args>
    void problem(uint64_t offset, std::string_view rule, fmt::format_string<Args...> text,
                 Args&&... args) {
        add({Severity::Problem, offset, rule, fmt::format(text, std::forward<Args>(args)...)});
    }
    template <typename... Args>
    void note(uint64_t offset, std::string_view rule, fmt::format_string<Args...> text,
              Args&&... args) {
        add({Severity::Note, offset, rule, fmt::format(text, std::forward<Args>(args)...)});
    }
    // The part that is being read makes no sense any more: the problem is kept, and the Error
    // returned only ends the reading of that part.
    template <typename... Args>
    Error broken(uint64_t offset, std::string_view rule, fmt::format_string<Args...> text,
                 Args&&... args) {
        std::string reason = fmt::format(text, std::forward<Args>(args)...);
        add({Severity::Problem, offset, rule, reason});
        return {ErrorKind::Protocol, std::move(reason)};
    }

    const std::vector<Problem>& all() const { return all_; }
    size_t problems() const { return problems_; }
    // Time to stop reading.
    bool too_many() const { return problems_ >= kMaxProblems; }
    // Notes beyond their limit: they change nothing, so reading goes on.
    uint64_t notes_left_out() const { return notes_left_out_; }
    // For a part that is read again: what was found since then does not count.
    size_t mark() const { return all_.size(); }
    void forget_since(size_t mark);

 private:
    void add(Problem problem);

    std::vector<Problem> all_;
    size_t problems_ = 0;
    uint64_t notes_left_out_ = 0;
};

}  // namespace ferry::stream_tool
