// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "tools/ferryctl/run.h"

namespace {

int interrupt_pipe[2] = {-1, -1};

// Only once: a second interruption ends the program as ever.
void on_interrupt(int /*signal*/) {
    const char byte = 0;
    [[maybe_unused]] const ssize_t written = ::write(interrupt_pipe[1], &byte, 1);
}

int catch_interrupt() {
    if (::pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
    struct sigaction action{};
    action.sa_handler = on_interrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    if (::sigaction(SIGINT, &action, nullptr) != 0) return -1;
    return interrupt_pipe[0];
}

// A VM that was started a moment ago does not listen yet.
constexpr int kAttemptMs = 50;
constexpr unsigned kAttempts = 100;
constexpr unsigned kSilentAttempts = 20;  // a second

bool wait_for_monitor(const std::string& socket, unsigned attempts, int interrupt_fd) {
    if (attempts == kAttempts) return false;
    if (attempts == kSilentAttempts) std::cerr << "ferryctl: waiting for " << socket << '\n';
    pollfd interrupted{interrupt_fd, POLLIN, 0};
    return ::poll(&interrupted, 1, kAttemptMs) <= 0;
}

}  // namespace

int main(int argc, char** argv) {
    using ferry::ferryctl::Console;
    const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    Console console{std::cout, std::cerr};
    if (::isatty(STDOUT_FILENO) == 1) {
        console.kind = Console::Kind::Terminal;
        winsize size{};
        if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
            console.columns = size.ws_col;
        }
    }
    console.interrupt_fd = catch_interrupt();
    console.try_again = [&console](const std::string& socket, unsigned attempts) {
        return wait_for_monitor(socket, attempts, console.interrupt_fd);
    };
    return ferry::ferryctl::run(arguments, console);
}
