// SPDX-License-Identifier: BSD-2-Clause
// What the guest asks the whole machine for: a write to a port that ends its day. The CPU that
// wrote waits; the main loop carries it out when no stop, start or reset is under way. A request
// that a migration overtakes travels along and is carried out where the VM goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "migration/vmstate.h"
#include "system/main-loop.h"

namespace ferry::vmm {

enum class GuestRequest : uint8_t { None, Reset, PowerOff, Suspend };

class GuestRequests {
 public:
    // `serve` is called on the loop thread, after each new request.
    GuestRequests(system::MainLoop& loop, std::function<void()> serve)
        : loop_(loop), serve_(std::make_shared<std::function<void()>>(std::move(serve))) {}

    // Any thread. A second request before the first was taken is the same as none, but for a
    // reset or power-off after a suspend.
    void request(GuestRequest what) {
        GuestRequest before = pending_.load();
        do {
            if (before != GuestRequest::None && before != GuestRequest::Suspend) return;
        } while (!pending_.compare_exchange_weak(before, what));
        post();
    }
    bool pending() const { return pending_.load() != GuestRequest::None; }  // any thread
    // Loop thread: once it can be carried out.
    GuestRequest take() { return pending_.exchange(GuestRequest::None); }
    // Loop thread: serves what was not taken yet, later.
    void post() {
        loop_.post([serve = std::weak_ptr(serve_)] {
            if (const auto alive = serve.lock()) (*alive)();
        });
    }

    struct State {
        uint8_t pending = 0;
        GuestRequests* owner = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    system::MainLoop& loop_;
    std::shared_ptr<std::function<void()>> serve_;
    std::atomic<GuestRequest> pending_ = GuestRequest::None;
    State state_{0, this};  // a copy, while the VM is saved or loaded
};

}  // namespace ferry::vmm
