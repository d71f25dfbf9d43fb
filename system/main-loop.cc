// SPDX-License-Identifier: BSD-2-Clause
#include "system/main-loop.h"

#include <future>
#include <memory>

#include "util/try.h"

namespace ferry::system {

Result<> run_on_loop(MainLoop& loop, std::function<Result<>()> call) {
    if (loop.on_loop_thread()) return call();
    auto promise = std::make_shared<std::promise<Result<>>>();
    auto future = promise->get_future();
    loop.post(
        [promise = std::move(promise), call = std::move(call)] { promise->set_value(call()); });
    try {
        return future.get();
    } catch (const std::future_error&) {  // the loop dropped its tasks: the VM is going away
        return make_error(ErrorKind::Cancelled, "the main loop has ended");
    }
}

}  // namespace ferry::system
