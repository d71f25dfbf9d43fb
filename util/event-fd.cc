// SPDX-License-Identifier: BSD-2-Clause
#include "util/event-fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "util/syscall.h"

namespace ferry::util {

Result<EventFd> EventFd::create() {
    const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd == -1) return errno_error("eventfd");
    return EventFd(UniqueFd(fd));
}

void EventFd::signal() const noexcept {
    const uint64_t one = 1;
    // Only fails when the counter is full: then it is signalled anyway.
    [[maybe_unused]] const ssize_t written = ::write(fd_.raw(), &one, sizeof(one));
}

uint64_t EventFd::consume() const noexcept {
    uint64_t count = 0;
    if (::read(fd_.raw(), &count, sizeof(count)) != sizeof(count)) return 0;
    return count;
}

}  // namespace ferry::util
