// SPDX-License-Identifier: BSD-2-Clause
// system::MainLoop over GLib's.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "system/main-loop.h"

using GMainContext = struct _GMainContext;  // NOLINT(bugprone-reserved-identifier): GLib's own name
using GMainLoop = struct _GMainLoop;        // NOLINT(bugprone-reserved-identifier): GLib's own name
using GSource = struct _GSource;            // NOLINT(bugprone-reserved-identifier): GLib's own name

namespace ferry::vmm {

// Belongs to the thread that creates it.
class GlibMainLoop final : public system::MainLoop {
 public:
    GlibMainLoop();
    ~GlibMainLoop() override;  // tasks that have not run are dropped
    GlibMainLoop(const GlibMainLoop&) = delete;
    GlibMainLoop& operator=(const GlibMainLoop&) = delete;

    void post(Task task) override;
    bool on_loop_thread() const override { return std::this_thread::get_id() == thread_; }
    util::Registration every(util::Nanoseconds period, std::function<void()> tick) override;
    util::Registration watch_fd(BorrowedFd fd, FdEvent event, std::function<void()> ready) override;

    // Loop thread. run() returns once quit() was called, also before run().
    void run();
    void quit() { ending_ = true; }

 private:
    struct PostSource;
    util::Registration attach(GSource* source, int (*function)(void*), std::function<void()> call);
    void run_posted();

    const std::thread::id thread_ = std::this_thread::get_id();
    GMainContext* context_;
    GSource* posted_source_;
    bool ending_ = false;

    std::mutex mutex_;
    std::deque<Task> posted_;  // mutex_
};

}  // namespace ferry::vmm
