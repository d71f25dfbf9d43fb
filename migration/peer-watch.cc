// SPDX-License-Identifier: BSD-2-Clause
#include "migration/peer-watch.h"

#include "util/try.h"

namespace ferry::migration {

namespace {
constexpr util::Nanoseconds kPeriod = std::chrono::milliseconds(200);
}

PeerWatch::PeerWatch(system::MainLoop& loop, util::Env& env, MigrationChannel& channel,
                     std::function<uint64_t()> limit_ms)
    : env_(env),
      channel_(channel),
      limit_ms_(std::move(limit_ms)),
      since_(env.clock.now()),
      timer_(loop.every(kPeriod, [this] { tick(); })) {}

PeerWatch::Expect PeerWatch::expected() const {
    if (heartbeats_.load(std::memory_order_relaxed)) return Expect::Bytes;
    return expect_.load(std::memory_order_relaxed);
}

void PeerWatch::tick() {
    const Expect now_expected = expected();
    const uint64_t moved =
        channel_.bytes_read() +
        (now_expected == Expect::Movement ? channel_.bytes_written() : uint64_t{0});
    const auto now = env_.clock.now();
    if (now_expected != watched_ || moved != seen_ || now_expected == Expect::Nothing) {
        watched_ = now_expected;
        seen_ = moved;
        since_ = now;
        return;
    }
    const uint64_t limit = limit_ms_();
    if (limit == 0 || now - since_ < std::chrono::milliseconds(limit)) return;
    since_ = now;
    channel_.shutdown(make_error(ErrorKind::PeerFailed,
                                 "{}: the peer has been silent for {} ms (x-peer-timeout)",
                                 channel_.name(), limit));
}

Result<size_t> WatchedSource::read_some(MutBytes into) {
    watch_.expect(PeerWatch::Expect::Bytes);
    auto got = channel_.read_some(into);
    watch_.expect(PeerWatch::Expect::Nothing);
    return got;
}

}  // namespace ferry::migration
