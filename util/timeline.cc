// SPDX-License-Identifier: BSD-2-Clause
#include "util/timeline.h"

namespace ferry::util {

void Timeline::clear() {
    const std::lock_guard lock(mutex_);
    spans_.clear();
    dropped_ = 0;
}

void Timeline::add(Span span) {
    const std::lock_guard lock(mutex_);
    if (spans_.size() < kMaxSpans) {
        spans_.push_back(std::move(span));
    } else {
        ++dropped_;
    }
}

std::vector<Span> Timeline::snapshot() const {
    const std::lock_guard lock(mutex_);
    return spans_;
}

}  // namespace ferry::util
