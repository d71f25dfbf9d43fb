// SPDX-License-Identifier: BSD-2-Clause
// Fails a migration whose peer has gone silent: a timer on the main loop compares the channels'
// counters and shuts them down with the reason, which wakes whoever is blocked on one.
#pragma once

#include <atomic>
#include <functional>
#include <string_view>
#include <vector>

#include "migration/channel.h"
#include "system/main-loop.h"
#include "util/env.h"
#include "util/event-fd.h"

namespace ferry::migration {

// The same before there is a channel: signals `cancel` when opening one takes too long.
class OpenWatch {
 public:
    // Loop thread. `limit_ms` 0 means for ever.
    OpenWatch(system::MainLoop& loop, util::Env& env, const util::EventFd& cancel,
              std::function<uint64_t()> limit_ms);

    // The limit that was reached; 0: none. Any thread.
    uint64_t expired_ms() const { return expired_ms_.load(std::memory_order_acquire); }

 private:
    void tick();

    util::Env& env_;
    const util::EventFd& cancel_;
    std::function<uint64_t()> limit_ms_;
    const util::Nanoseconds begin_;
    std::atomic<uint64_t> expired_ms_ = 0;
    util::Registration timer_;
};

class PeerWatch {
 public:
    // What must happen within the time limit. Settable from any thread.
    enum class Expect : uint8_t {
        Nothing,   // we are busy with ourselves
        Movement,  // bytes in either direction
        Bytes,     // bytes from the peer
        Taking,    // the peer takes our bytes, whatever it sends
    };
    // Loop thread; the channels must outlive this, the first is the main one. `peer` is who the
    // error is about, a literal; `limit_ms` 0 means for ever.
    PeerWatch(system::MainLoop& loop, util::Env& env, std::vector<MigrationChannel*> channels,
              std::string_view peer, std::function<uint64_t()> limit_ms);

    // Returns what was expected before.
    Expect expect(Expect what) { return expect_.exchange(what, std::memory_order_relaxed); }
    // From now on the peer sends heartbeats: bytes are expected always, but in Taking. Any thread.
    void expect_heartbeats() { heartbeats_.store(true, std::memory_order_relaxed); }

 private:
    void tick();
    Expect expected() const;
    uint64_t moved(Expect what) const;

    util::Env& env_;
    const std::vector<MigrationChannel*> channels_;
    std::string_view peer_;
    std::function<uint64_t()> limit_ms_;
    std::atomic<Expect> expect_ = Expect::Nothing;
    std::atomic<bool> heartbeats_ = false;
    Expect watched_ = Expect::Nothing;
    uint64_t seen_ = 0;
    util::Nanoseconds since_{};
    util::Registration timer_;
};

// A channel's reading half under watch: bytes are expected while somebody waits for them, and not
// while what came is worked on, however long a device takes over it.
class WatchedSource final : public ByteSource {
 public:
    // `begin`: of the channel's bytes, what has been read already.
    WatchedSource(MigrationChannel& channel, PeerWatch& watch, std::vector<std::byte> begin)
        : begin_(std::move(begin)), channel_(channel), watch_(watch) {}
    Result<size_t> read_some(MutBytes into) override;

 private:
    std::vector<std::byte> begin_;
    MigrationChannel& channel_;
    PeerWatch& watch_;
};

}  // namespace ferry::migration
