// SPDX-License-Identifier: BSD-2-Clause
#include "util/thread.h"

#include <pthread.h>

#include <system_error>

#include "util/try.h"

namespace ferry::util {

Result<std::jthread> start_thread(const std::string& name,
                                  std::function<void(std::stop_token)> body) {
    constexpr size_t kMaxNameLength = 15;  // what the kernel keeps
    try {
        const std::string kept = name.substr(0, kMaxNameLength);
        std::jthread thread([kept, body = std::move(body)](std::stop_token stop) {
            ::pthread_setname_np(::pthread_self(), kept.c_str());
            body(std::move(stop));
        });
        // It may not have run yet, but whoever looks now shall find it by its name.
        ::pthread_setname_np(thread.native_handle(), kept.c_str());
        return thread;
    } catch (const std::system_error& failure) {
        return make_errno(failure.code().value(), "starting thread {}", name);
    }
}

Result<std::unique_ptr<Worker>> Worker::create(const std::string& name) {
    std::unique_ptr<Worker> worker(new Worker());
    MIG_TRY(worker->thread_,
            start_thread(name, [raw = worker.get()](const std::stop_token&) { raw->loop(); }));
    return worker;
}

Worker::~Worker() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    wake_.notify_all();
}

void Worker::post(Job job) {
    {
        const std::lock_guard lock(mutex_);
        jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
}

bool Worker::on_worker_thread() const {
    return std::this_thread::get_id() == thread_.get_id();
}

void Worker::loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        Job job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        job();
        job = nullptr;  // captured objects die outside the lock
        lock.lock();
    }
}

}  // namespace ferry::util
