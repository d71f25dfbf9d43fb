// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/signals.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

struct Received {
    int signal;
    pid_t sender;
};

// What a handler can reach has to be global: the pipe's end to write to, or -1 while nobody reads.
std::atomic<int> notify_fd =
    -1;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): used by a signal handler
static_assert(std::atomic<int>::is_always_lock_free);

void handle(int signal, siginfo_t* info, void* /*context*/) {
    const int saved_errno = errno;
    const int fd = notify_fd;
    if (fd == -1) ::_exit(EXIT_SUCCESS);  // nothing is served yet
    const Received received{signal, info->si_pid};
    // A full pipe holds enough reasons to end already.
    [[maybe_unused]] const ssize_t written = ::write(fd, &received, sizeof(received));
    errno = saved_errno;
}

std::string process_name(pid_t pid) {
    const auto fd = util::open_file(fmt::format("/proc/{}/comm", pid), O_RDONLY);
    std::array<std::byte, 64> text{};
    const auto got = fd ? util::read_fd(fd->borrow(), text, "read(comm)") : Result<size_t>(0);
    std::string name;
    for (size_t i = 0; got && i < *got && text[i] != std::byte{'\n'}; ++i) {
        name.push_back(static_cast<char>(text[i]));
    }
    return name.empty() ? "unknown process" : name;
}

}  // namespace

Result<> install_signal_handlers() {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
        MIG_CHECK(util::check_call(::sigaction(signal, &action, nullptr), "sigaction"));
    }
    struct sigaction ignore{};
    ignore.sa_handler = SIG_IGN;
    MIG_CHECK(util::check_call(::sigaction(SIGPIPE, &ignore, nullptr), "sigaction(SIGPIPE)"));
    return {};
}

Result<util::Registration> on_termination(system::MainLoop& loop,
                                          std::function<void(const std::string&)> ended) {
    std::array<int, 2> ends{};
    MIG_CHECK(util::check_call(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), "pipe2"));
    const auto reading = std::make_shared<UniqueFd>(ends[0]);
    const auto writing = std::make_shared<UniqueFd>(ends[1]);
    auto watch = loop.watch_fd(
        reading->borrow(), system::MainLoop::FdEvent::Readable,
        [reading, ended = std::move(ended)] {
            Received received{};
            const auto got =
                util::read_fd(reading->borrow(), std::as_writable_bytes(std::span(&received, 1)),
                              "read(signals)");
            if (!got || *got != sizeof(received)) return;
            ended(fmt::format("terminating on signal {} from pid {} ({})", received.signal,
                              received.sender, process_name(received.sender)));
        });
    notify_fd = writing->raw();
    return util::Registration([writing, watch = std::move(watch)]() mutable {
        notify_fd = -1;
        watch.reset();
    });
}

}  // namespace ferry::vmm
