// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/leftovers.h"

#include <fmt/format.h>

#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace ferry::test {

namespace {

namespace fs = std::filesystem;

// "socket:[1234]" -> "socket:": which one it is tells nobody anything.
std::string without_number(const std::string& target) {
    const size_t bracket = target.find('[');
    const bool number = bracket != std::string::npos && std::isdigit(target[bracket + 1]) != 0;
    return number ? target.substr(0, bracket) : target;
}

std::string thread_names() {
    std::string names;
    for (const auto& entry : fs::directory_iterator("/proc/self/task")) {
        std::string name;
        if (std::ifstream comm(entry.path() / "comm"); std::getline(comm, name))
            names += name + " ";
    }
    return names;
}

}  // namespace

Leftovers::Leftovers() : before_(take()) {}

// Only shared mappings: those are what the library makes (RAM, device state, BARs). Private ones
// are the allocator's and the threads' stacks, and come and go as it pleases them.
Leftovers::Census Leftovers::take() {
    Census census;
    // Entries may vanish while they are looked at.
    std::error_code gone;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
        const std::string target = fs::read_symlink(entry.path(), gone).string();
        if (!gone) ++census["fd " + without_number(target)];
    }
    // Not by name: a thread that was just started has none yet.
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/task")) {
        ++census["threads"];
    }
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        std::istringstream fields(line);
        uint64_t begin = 0;
        uint64_t end = 0;
        char dash = 0;
        std::string permissions, offset, device, inode, path;
        fields >> std::hex >> begin >> dash >> end >> permissions >> offset >> device >> inode;
        std::getline(fields >> std::ws, path);
        if (permissions.ends_with('s')) census["mapping " + path] += end - begin;
    }
    return census;
}

std::string Leftovers::difference() const {
    const Census now = take();
    const auto count = [](const Census& census, const std::string& what) {
        const auto at = census.find(what);
        return at == census.end() ? uint64_t{0} : at->second;
    };
    Census all = before_;
    all.insert(now.begin(), now.end());
    std::string text;
    for (const auto& [what, unused] : all) {
        const uint64_t then = count(before_, what);
        const uint64_t left = count(now, what);
        if (then != left) text += fmt::format("{}: {} before, {} now; ", what, then, left);
    }
    return text;
}

std::string Leftovers::since() const {
    constexpr auto kLimit = std::chrono::seconds(10);  // only reached when something was left
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    std::string text = difference();
    while (!text.empty() && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::yield();
        text = difference();
    }
    return text.empty() ? text : text + "threads: " + thread_names();
}

}  // namespace ferry::test
