// SPDX-License-Identifier: BSD-2-Clause
// The only reader of errno. Each wrapper retries EINTR, names the call in the error's text and
// returns Error{Syscall, errno}. "call" strings look like "read(/dev/vfio/7)".
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "util/bytes.h"
#include "util/result.h"
#include "util/unique-fd.h"

struct iovec;
struct pollfd;

namespace ferry::util {

// Turns the current errno into an Error. Call at once after the failing call.
Error errno_error(std::string call);
// A Result from a C return value: -1 means errno.
Result<int> check_call(long value, std::string_view call);

Result<UniqueFd> open_file(const std::string& path, int flags, mode_t mode = 0600);
Result<size_t> read_fd(BorrowedFd fd, MutBytes into, std::string_view call);
Result<size_t> write_fd(BorrowedFd fd, ConstBytes from, std::string_view call);
Result<> pread_all(BorrowedFd fd, MutBytes into, uint64_t offset, std::string_view call);
Result<> pwrite_all(BorrowedFd fd, ConstBytes from, uint64_t offset, std::string_view call);
Result<> set_nonblocking(BorrowedFd fd);
Result<UniqueFd> duplicate(BorrowedFd fd);  // close-on-exec
// Blocks until one of the descriptors is ready; timeout_ms < 0 waits for ever. 0 = timed out.
Result<int> poll_fds(pollfd* fds, size_t count, int timeout_ms);

}  // namespace ferry::util
