// SPDX-License-Identifier: BSD-2-Clause
#include "util/activity.h"

namespace ferry::util {

ActivityBoard::Entry::Entry(ActivityBoard& board, std::string who, std::string call)
    : board_(board) {
    PendingCall pending{std::move(who), std::move(call), board.clock_.now()};
    const std::lock_guard lock(board_.mutex_);
    at_ = board_.calls_.insert(board_.calls_.end(), std::move(pending));
}

ActivityBoard::Entry::~Entry() {
    const std::lock_guard lock(board_.mutex_);
    board_.calls_.erase(at_);
}

std::vector<PendingCall> ActivityBoard::snapshot() const {
    const std::lock_guard lock(mutex_);
    return {calls_.begin(), calls_.end()};
}

}  // namespace ferry::util
