// SPDX-License-Identifier: BSD-2-Clause
// Who is inside a call that may take long (a driver's ioctl, a data read, a socket write). A thread
// inside a driver cannot be woken; naming the call is what can be done for the person who waits.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "util/clock.h"

namespace ferry::util {

struct PendingCall {
    std::string who;   // device or channel
    std::string call;  // "set state stop-copy", "read state", ...
    Nanoseconds since{};
};

// Thread-safe; the lock is held for list operations only, never across a call.
class ActivityBoard {
 public:
    explicit ActivityBoard(const Clock& clock) : clock_(clock) {}

    class Entry {
     public:
        Entry(ActivityBoard& board, std::string who, std::string call);
        ~Entry();
        Entry(const Entry&) = delete;
        Entry& operator=(const Entry&) = delete;

     private:
        ActivityBoard& board_;
        std::list<PendingCall>::iterator at_;
    };

    // Oldest first.
    std::vector<PendingCall> snapshot() const;
    Nanoseconds now() const { return clock_.now(); }

 private:
    const Clock& clock_;
    mutable std::mutex mutex_;
    std::list<PendingCall> calls_;
};

}  // namespace ferry::util
