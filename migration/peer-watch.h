// SPDX-License-Identifier: BSD-2-Clause
// Fails a migration whose peer has gone silent: a timer on the main loop compares the channel's
// counters and shuts it down with the reason, which wakes whoever is blocked on it.
#pragma once

#include <atomic>
#include <functional>

#include "migration/channel.h"
#include "system/main-loop.h"
#include "util/env.h"

namespace ferry::migration {

class PeerWatch {
 public:
    // What must happen within the time limit. Settable from any thread.
    enum class Expect : uint8_t {
        Nothing,   // we are busy with ourselves
        Movement,  // bytes in either direction
        Bytes,     // bytes from the peer
    };
    // Loop thread; the channel must outlive this. `limit_ms` 0 means for ever.
    PeerWatch(system::MainLoop& loop, util::Env& env, MigrationChannel& channel,
              std::function<uint64_t()> limit_ms);

    void expect(Expect what) { expect_.store(what, std::memory_order_relaxed); }

 private:
    void tick();

    util::Env& env_;
    MigrationChannel& channel_;
    std::function<uint64_t()> limit_ms_;
    std::atomic<Expect> expect_ = Expect::Nothing;
    Expect watched_ = Expect::Nothing;
    uint64_t seen_ = 0;
    util::Nanoseconds since_{};
    util::Registration timer_;
};

}  // namespace ferry::migration
