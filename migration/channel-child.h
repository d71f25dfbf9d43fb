// SPDX-License-Identifier: BSD-2-Clause
// The command behind an exec: channel, from its start to the collection of its exit status.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "migration/channel-waker.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::migration {

// One thread at a time.
class ChildProcess {
 public:
    struct Spec {
        std::vector<std::string> args;  // looked up in PATH
        BorrowedFd standard_input;
        BorrowedFd standard_output;
        std::string name;  // for errors
    };
    // The child has the two descriptors and our standard error, and no other; a process group of
    // its own; no signal blocked or ignored.
    static Result<std::unique_ptr<ChildProcess>> start(const Spec& spec);
    // Kills what still runs, with everything it has started, and collects it.
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    enum class Exit : uint8_t { Success, Failure, StillRunning };
    struct Status {
        Exit exit = Exit::StillRunning;
        int signal = 0;    // that killed it, or the command that a shell ran
        std::string text;  // "the command exited with status 3"
    };
    // Waits for the end; the waker's reason when woken. StillRunning only after `timeout_ms`.
    Result<Status> wait(const Waker& waker, int timeout_ms = -1);
    void kill() noexcept;

 private:
    ChildProcess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
    Result<Status> collect();

    const pid_t pid_;
    const UniqueFd pidfd_;
    bool collected_ = false;
    Status status_;
};

}  // namespace ferry::migration
