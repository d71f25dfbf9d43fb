// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>

#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::util {

// An eventfd as a value. Non-blocking, close-on-exec.
class EventFd {
 public:
    static Result<EventFd> create();
    BorrowedFd fd() const { return fd_.borrow(); }
    void signal() const noexcept;
    // How often it was signalled since the last call; 0 when not.
    uint64_t consume() const noexcept;

 private:
    explicit EventFd(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace ferry::util
