// SPDX-License-Identifier: BSD-2-Clause
// The qtest protocol on a socket, served by a thread of its own: it plays the guest's CPU, whose
// accesses may block in a driver.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "accel/qtest/protocol.h"
#include "system/vmm/options.h"
#include "util/char-address.h"
#include "util/clock.h"
#include "util/event-fd.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vmm {

class QtestServer {
 public:
    // A client that lets so many unasked lines pile up is disconnected.
    static constexpr size_t kMaxUnasked = 4096;

    // Connects or listens; waits for the client where the address says so. `parts` and `clock`
    // outlive it.
    static Result<std::unique_ptr<QtestServer>> start(const util::CharAddress& where,
                                                      const QtestLog& log,
                                                      qtest::Protocol::Parts parts,
                                                      const util::Clock& clock);
    // Waits for the request that is being handled.
    ~QtestServer();
    QtestServer(const QtestServer&) = delete;
    QtestServer& operator=(const QtestServer&) = delete;

    // Whether a request is being handled right now. Any thread.
    bool busy() const { return busy_.load(std::memory_order_relaxed); }

 private:
    QtestServer(qtest::Protocol::Parts parts, const util::Clock& clock, util::EventFd stop,
                util::EventFd unasked);
    Result<> open(const util::CharAddress& where);
    void thread_main();
    void serve(BorrowedFd client);
    // Handles all complete lines of `input`, removes them, returns the replies. The first `seen`
    // bytes are known to hold no line end.
    std::string handle_lines(std::string& input, size_t seen);
    // Waits for the descriptor; false when the server is to end.
    bool wait_for(BorrowedFd fd, short events) const;
    enum class Woken : uint8_t { ByClient, ByUnasked, ByEnd };
    Woken wait_for_work(BorrowedFd client) const;
    void add_unasked(std::string line);  // any thread
    std::string take_unasked();
    void forget_unasked();
    // Whether the client has let too much pile up.
    bool overrun();
    bool send(BorrowedFd client, std::string_view text) const;
    void log(std::string_view kind, std::string_view text);

    const util::Clock& clock_;
    util::EventFd stop_;
    util::EventFd has_unasked_;
    std::mutex unasked_mutex_;
    std::vector<std::string> unasked_;  // unasked_mutex_
    bool overrun_ = false;              // unasked_mutex_
    qtest::Protocol protocol_;
    UniqueFd listener_;      // invalid where we are the client
    std::string unix_path_;  // of the listener
    UniqueFd first_client_;  // connected before the thread began
    UniqueFd log_;
    util::Nanoseconds opened_{};
    std::atomic<bool> busy_ = false;
    std::jthread thread_;
};

}  // namespace ferry::vmm
