// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/state-loader.h"

#include <future>

#include "util/thread.h"
#include "util/try.h"

namespace ferry::vfio {

Result<std::unique_ptr<StateLoader>> StateLoader::start(
    const std::string& name, migration::StateQueue& queue,
    std::function<Result<>(const Packet&)> load) {
    std::unique_ptr<StateLoader> loader(new StateLoader(queue, std::move(load)));
    MIG_TRY(loader->thread_, util::start_thread(name, [raw = loader.get()](const std::stop_token&) {
                auto outcome = raw->run();
                std::unique_lock lock(raw->mutex_);
                raw->outcome_ = outcome;
                auto done = std::move(raw->done_);
                lock.unlock();
                if (done) done(std::move(outcome));
            }));
    return loader;
}

Result<> StateLoader::run() {
    for (;;) {
        MIG_TRY(const std::optional<Packet> packet, queue_.next());
        if (!packet) return {};
        if (auto loaded = load_(*packet); !loaded) {
            queue_.fail(loaded.error());
            return loaded;
        }
    }
}

void StateLoader::when_done(std::move_only_function<void(Result<>)> done) {
    std::unique_lock lock(mutex_);
    if (!outcome_) {
        done_ = std::move(done);
        return;
    }
    const Result<> outcome = *outcome_;
    lock.unlock();
    done(outcome);
}

Result<> StateLoader::wait() {
    std::promise<Result<>> told;
    auto answer = told.get_future();
    when_done([&told](Result<> outcome) { told.set_value(std::move(outcome)); });
    return answer.get();
}

}  // namespace ferry::vfio
