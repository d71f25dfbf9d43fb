// SPDX-License-Identifier: BSD-2-Clause
// What the benchmarks share: a connected pair of sockets as channels, and seconds.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "migration/channel.h"

namespace ferry::bench {

inline std::pair<UniqueFd, UniqueFd> socket_pair() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) std::abort();
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

inline std::pair<std::unique_ptr<migration::MigrationChannel>,
                 std::unique_ptr<migration::MigrationChannel>>
channel_pair() {
    auto [a, b] = socket_pair();
    return {
        std::move(*migration::channel_from_fd(std::move(a), "bench", migration::FdUse::Outgoing)),
        std::move(*migration::channel_from_fd(std::move(b), "bench", migration::FdUse::Incoming))};
}

// A failed step makes the figures worthless.
inline void must(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "bench: %s failed\n", what);
    std::exit(1);
}

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace ferry::bench
