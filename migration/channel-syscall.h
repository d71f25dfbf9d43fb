// SPDX-License-Identifier: BSD-2-Clause
// The calls that move a channel's bytes. Unlike the wrappers in util/syscall they build no Error,
// because "not now" is an ordinary answer here and nothing is allocated on the pause's path.
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "util/bytes.h"
#include "util/result.h"
#include "util/unique-fd.h"

struct iovec;

namespace ferry::migration {

struct Moved {
    size_t bytes = 0;
    int errnum = 0;  // 0: `bytes` were moved
    bool not_now() const;
};

// Each retries EINTR and may move fewer bytes than asked for.
Moved read_now(BorrowedFd fd, MutBytes into);
Moved read_at(BorrowedFd fd, MutBytes into, uint64_t offset);
Moved write_now(BorrowedFd fd, std::span<const iovec> parts);
Moved write_at(BorrowedFd fd, std::span<const iovec> parts, uint64_t offset);
Moved send_now(BorrowedFd socket, std::span<const iovec> parts);  // raises no SIGPIPE

// The Error of a transfer that failed: PeerClosed, PeerFailed or Syscall, errno kept.
Error transfer_error(std::string_view channel, std::string_view step, int errnum);

// Walks over the parts of one write, a bounded number at a time.
class PartsCursor {
 public:
    static constexpr size_t kBatch = 256;  // 4 KiB of stack; with 4 KiB pages 1 MiB per call

    explicit PartsCursor(std::span<const ConstBytes> parts) : parts_(parts) { skip_empty(); }

    bool done() const { return parts_.empty(); }
    // What comes next, at most `max_bytes` of it, described in `room`.
    std::span<const iovec> next(std::span<iovec> room, size_t max_bytes = SIZE_MAX) const;
    void advance(size_t bytes);

 private:
    void skip_empty();

    std::span<const ConstBytes> parts_;  // begins with the one not yet complete
    size_t written_ = 0;                 // of that one
};

// While it lives, a signal that a write raises in this thread (SIGPIPE, SIGXFSZ) cannot end the
// process: the embedder may have left it at its default.
class SignalShield {
 public:
    explicit SignalShield(int signum);
    ~SignalShield();
    SignalShield(const SignalShield&) = delete;
    SignalShield& operator=(const SignalShield&) = delete;
    // The write failed in the way that raises the signal: takes it away again.
    void absorb();

 private:
    sigset_t signal_{};
    sigset_t before_{};
    bool was_pending_ = false;
};

}  // namespace ferry::migration
