// SPDX-License-Identifier: BSD-2-Clause
// What the tests of channels share.
#pragma once

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "migration/channel.h"
#include "tests/support/fake-clock.h"
#include "tests/support/test-loop.h"

namespace ferry::migration {

// The test's end of a Result: its value, or a failure that prints the Error.
template <typename T>
T must(Result<T> result) {
    if (!result) {
        ADD_FAILURE() << result.error().message();
        std::abort();
    }
    return std::move(*result);
}

inline void expect_ok(const Result<>& result) {
    EXPECT_TRUE(result.has_value()) << result.error().message();
}

template <typename T>
Error error_of(const Result<T>& result) {
    if (result.has_value()) return Error(ErrorKind::Internal, "no error");
    return result.error();
}

// Nothing may stay open after a test.
class DescriptorsAreClosed {
 public:
    DescriptorsAreClosed() : before_(count()) {}
    ~DescriptorsAreClosed() { EXPECT_LE(count(), before_) << "descriptors left open"; }
    DescriptorsAreClosed(const DescriptorsAreClosed&) = delete;
    DescriptorsAreClosed& operator=(const DescriptorsAreClosed&) = delete;

 private:
    static long count() {
        const std::filesystem::directory_iterator fds("/proc/self/fd");
        return std::distance(begin(fds), end(fds));
    }
    long before_;
};

class TemporaryDirectory {
 public:
    TemporaryDirectory() {
        char path[] = "/tmp/ferry-channel-XXXXXX";
        path_ = ::mkdtemp(path);
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

    std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
    std::string path_;
};

inline void put_file(const std::string& path, std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
}

inline std::string file_content(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return content.str();
}

// A call on a thread of its own, and a way to know that it is really blocked.
class BlockingCall {
 public:
    explicit BlockingCall(std::function<void()> call)
        : thread_([this, call = std::move(call)] {
              thread_id_.store(static_cast<pid_t>(::syscall(SYS_gettid)));
              call();
              returned_.store(true);
          }) {}

    // Returns once the thread sleeps in the kernel, or its call has returned.
    void wait_until_blocked() const {
        while (!returned_.load() && !is_asleep()) std::this_thread::yield();
    }
    void join() { thread_.join(); }

 private:
    bool is_asleep() const {
        if (thread_id_.load() == 0) return false;
        std::ifstream stat("/proc/self/task/" + std::to_string(thread_id_.load()) + "/stat");
        std::string line;
        std::getline(stat, line);
        const size_t name_end = line.rfind(')');
        return name_end != std::string::npos && line.size() > name_end + 2 &&
               line[name_end + 2] == 'S';
    }

    std::atomic<pid_t> thread_id_ = 0;
    std::atomic<bool> returned_ = false;
    std::jthread thread_;
};

inline Result<> write_text(MigrationChannel& channel, std::string_view text) {
    const ConstBytes parts[] = {bytes_of(text)};
    return channel.write_all(parts);
}

// Everything up to the end of the stream, in reads of at most `step` bytes.
inline Result<std::string> read_to_end(MigrationChannel& channel, size_t step = 4096) {
    std::string all;
    std::vector<std::byte> buffer(step);
    for (;;) {
        auto count = channel.read_some(buffer);
        if (!count) return std::move(count).error();
        if (*count == 0) return all;
        all.append(reinterpret_cast<const char*>(buffer.data()), *count);
    }
}

// Numbered lines: a byte out of place shows.
inline std::string_view long_text(size_t size) {
    constexpr size_t kLongest = size_t{5} << 20;
    static const std::string text = [] {
        std::string lines;
        for (uint64_t line = 0; lines.size() < kLongest; ++line) {
            lines += std::to_string(line) + "\n";
        }
        return lines;
    }();
    return std::string_view(text).substr(0, size);
}

// A listener on a main loop, and the channels it handed over.
class ListeningSide {
 public:
    explicit ListeningSide(const MigrationAddress& address) {
        loop_.run([&] {
            auto made = ChannelListener::create(
                address, loop_, [this](auto channel) { accepted_.push_back(std::move(channel)); });
            if (made) {
                listener_ = std::move(*made);
            } else {
                error_ = made.error();
            }
        });
    }
    ~ListeningSide() {
        loop_.run([this] {
            listener_.reset();
            accepted_.clear();
        });
    }
    ListeningSide(const ListeningSide&) = delete;
    ListeningSide& operator=(const ListeningSide&) = delete;

    const std::optional<Error>& error() const { return error_; }
    MigrationAddress address() {
        MigrationAddress result;
        loop_.run([&] { result = listener_->address(); });
        return result;
    }
    std::unique_ptr<MigrationChannel> next_accepted() {
        if (!loop_.wait_for([this] { return !accepted_.empty(); })) return nullptr;
        std::unique_ptr<MigrationChannel> channel;
        loop_.run([&] {
            channel = std::move(accepted_.front());
            accepted_.pop_front();
        });
        return channel;
    }
    size_t waiting() {
        size_t count = 0;
        loop_.run([&] { count = accepted_.size(); });
        return count;
    }
    test::TestLoop& loop() { return loop_; }
    test::FakeClock& clock() { return clock_; }

 private:
    test::FakeClock clock_;
    test::TestLoop loop_{clock_};
    std::optional<Error> error_;
    // loop thread
    std::unique_ptr<ChannelListener> listener_;
    std::deque<std::unique_ptr<MigrationChannel>> accepted_;
};

inline Result<std::unique_ptr<MigrationChannel>> connect_to(const MigrationAddress& address) {
    const util::EventFd never = must(util::EventFd::create());
    return connect_channel(address, never);
}

inline MigrationAddress uri(std::string_view text) {
    return must(parse_migration_uri(text));
}

}  // namespace ferry::migration
