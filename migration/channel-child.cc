// SPDX-License-Identifier: BSD-2-Clause
#include "migration/channel-child.h"

#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// A killed process goes at once unless it sits in the kernel, on a dead disk for example. Then it
// is left to itself: closing a channel must not hang.
constexpr int kKillLimitMs = 1000;

// How the child differs from us.
class SpawnPlan {
 public:
    explicit SpawnPlan(const ChildProcess::Spec& spec) {
        sigset_t none{};
        sigset_t all{};
        ::sigemptyset(&none);
        ::sigfillset(&all);
        need(::posix_spawn_file_actions_init(&actions_));
        need(
            ::posix_spawn_file_actions_adddup2(&actions_, spec.standard_input.raw(), STDIN_FILENO));
        need(::posix_spawn_file_actions_adddup2(&actions_, spec.standard_output.raw(),
                                                STDOUT_FILENO));
        need(::posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1));
        need(::posix_spawnattr_init(&attributes_));
        need(::posix_spawnattr_setsigmask(&attributes_, &none));
        need(::posix_spawnattr_setsigdefault(&attributes_, &all));
        need(::posix_spawnattr_setpgroup(&attributes_, 0));
        need(::posix_spawnattr_setflags(
            &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP));
    }
    ~SpawnPlan() {
        ::posix_spawn_file_actions_destroy(&actions_);
        ::posix_spawnattr_destroy(&attributes_);
    }
    SpawnPlan(const SpawnPlan&) = delete;
    SpawnPlan& operator=(const SpawnPlan&) = delete;

    // 0, or the errno of what failed. The child's number goes to `pid`.
    int run(pid_t& pid, std::vector<char*> argv) {
        if (failure_ != 0) return failure_;
        return ::posix_spawnp(&pid, argv[0], &actions_, &attributes_, argv.data(), ::environ);
    }

 private:
    void need(int errnum) {
        if (failure_ == 0) failure_ = errnum;
    }

    int failure_ = 0;
    posix_spawn_file_actions_t actions_{};
    posix_spawnattr_t attributes_{};
};

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::start(const Spec& spec) {
    if (spec.args.empty()) {
        return make_error(ErrorKind::InvalidArgument, "{}: no command given", spec.name);
    }
    SpawnPlan plan(spec);
    std::vector<char*> argv;
    for (const std::string& arg : spec.args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    pid_t pid = -1;
    const int failure = plan.run(pid, std::move(argv));
    if (failure != 0) return make_errno(failure, "{}: starting {}", spec.name, spec.args[0]);
    auto pidfd = util::check_call(::syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
    if (!pidfd) {
        ::kill(-pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return std::move(pidfd).error().context(spec.name);
    }
    return std::unique_ptr<ChildProcess>(new ChildProcess(pid, UniqueFd(*pidfd)));
}

ChildProcess::~ChildProcess() {
    if (collected_) return;
    kill();
    pollfd gone{pidfd_.raw(), POLLIN, 0};
    if (auto ended = util::poll_fds(&gone, 1, kKillLimitMs); ended && *ended == 1) {
        [[maybe_unused]] const auto status = collect();  // nobody asks any more
    }
}

// The process is not collected yet, so its number, and the group's, cannot be somebody else's.
void ChildProcess::kill() noexcept {
    if (!collected_) ::kill(-pid_, SIGKILL);
}

Result<ChildProcess::Status> ChildProcess::wait(const Waker& waker, int timeout_ms) {
    if (collected_) return status_;
    MIG_TRY(const Waker::Wait ended, waker.wait(pidfd_.borrow(), POLLIN, timeout_ms));
    if (ended == Waker::Wait::TimedOut) return Status{};
    return collect();
}

Result<ChildProcess::Status> ChildProcess::collect() {
    siginfo_t info{};
    auto got = util::check_call(::waitid(P_PIDFD, static_cast<id_t>(pidfd_.raw()), &info, WEXITED),
                                "waitid");
    collected_ = true;
    if (!got) {
        // The embedder ignores SIGCHLD or collects all children: success cannot be known.
        status_ = {Exit::Failure, 0, "the command's exit status was taken by somebody else"};
        return status_;
    }
    if (info.si_code != CLD_EXITED) {
        status_ = {Exit::Failure, info.si_status,
                   fmt::format("the command was killed by signal {} ({})", info.si_status,
                               ::sigdescr_np(info.si_status))};
    } else if (info.si_status != 0) {
        constexpr int kShellSignalBase = 128;
        status_ = {Exit::Failure, std::max(info.si_status - kShellSignalBase, 0),
                   fmt::format("the command exited with status {}", info.si_status)};
    } else {
        status_ = {Exit::Success, 0, "the command exited with status 0"};
    }
    return status_;
}

}  // namespace ferry::migration
