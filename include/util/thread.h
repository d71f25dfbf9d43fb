// SPDX-License-Identifier: BSD-2-Clause
// Named threads, and a worker thread that runs jobs one after another.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "util/result.h"

namespace ferry::util {

// Starts a joining thread whose name (first 15 bytes) shows up in ps and gdb.
Result<std::jthread> start_thread(const std::string& name,
                                  std::function<void(std::stop_token)> body);

// One thread, one queue, first in first out. The destructor runs what is queued and joins.
// post(): any thread.
class Worker {
 public:
    using Job = std::move_only_function<void()>;

    static Result<std::unique_ptr<Worker>> create(const std::string& name);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void post(Job job);
    bool on_worker_thread() const;

    // Runs `call` on the worker and waits for its value. Never from the worker itself.
    template <typename Call>
    auto run(Call call) -> decltype(call()) {
        std::packaged_task<decltype(call())()> task(std::move(call));
        auto future = task.get_future();
        post([&task] { task(); });
        return future.get();
    }

 private:
    Worker() = default;
    void loop();

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool closing_ = false;
    std::jthread thread_;
};

}  // namespace ferry::util
