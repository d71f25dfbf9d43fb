// SPDX-License-Identifier: BSD-2-Clause
#include "migration/peer-watch.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::migration {

namespace {
constexpr util::Nanoseconds kPeriod = std::chrono::milliseconds(200);
}

OpenWatch::OpenWatch(system::MainLoop& loop, util::Env& env, const util::EventFd& cancel,
                     std::function<uint64_t()> limit_ms)
    : env_(env),
      cancel_(cancel),
      limit_ms_(std::move(limit_ms)),
      begin_(env.clock.now()),
      timer_(loop.every(kPeriod, [this] { tick(); })) {}

void OpenWatch::tick() {
    const uint64_t limit = limit_ms_();
    if (limit == 0 || env_.clock.now() - begin_ < std::chrono::milliseconds(limit)) return;
    expired_ms_.store(limit, std::memory_order_release);
    cancel_.signal();
}

PeerWatch::PeerWatch(system::MainLoop& loop, util::Env& env,
                     std::vector<MigrationChannel*> channels, std::string_view peer,
                     std::function<uint64_t()> limit_ms)
    : env_(env),
      channels_(std::move(channels)),
      peer_(peer),
      limit_ms_(std::move(limit_ms)),
      since_(env.clock.now()),
      timer_(loop.every(kPeriod, [this] { tick(); })) {}

PeerWatch::Expect PeerWatch::expected() const {
    const Expect set = expect_.load(std::memory_order_relaxed);
    const bool beats = heartbeats_.load(std::memory_order_relaxed);
    return beats && set != Expect::Taking ? Expect::Bytes : set;
}

uint64_t PeerWatch::moved(Expect what) const {
    uint64_t bytes = 0;
    for (const MigrationChannel* channel : channels_) {
        if (what != Expect::Taking) bytes += channel->bytes_read();
        if (what == Expect::Movement || what == Expect::Taking) bytes += channel->bytes_written();
    }
    return bytes;
}

void PeerWatch::tick() {
    const Expect now_expected = expected();
    const uint64_t bytes = moved(now_expected);
    const auto now = env_.clock.now();
    if (now_expected != watched_ || bytes != seen_ || now_expected == Expect::Nothing) {
        watched_ = now_expected;
        seen_ = bytes;
        since_ = now;
        return;
    }
    const uint64_t limit = limit_ms_();
    if (limit == 0 || now - since_ < std::chrono::milliseconds(limit)) return;
    since_ = now;
    for (MigrationChannel* channel : channels_) {
        channel->shutdown(make_error(ErrorKind::PeerFailed,
                                     "{}: {} has been silent for {} ms (x-peer-timeout)",
                                     channels_.front()->name(), peer_, limit));
    }
}

Result<size_t> WatchedSource::read_some(MutBytes into) {
    if (!begin_.empty()) {
        const size_t count = std::min(begin_.size(), into.size());
        std::copy_n(begin_.begin(), count, into.begin());
        begin_.erase(begin_.begin(), begin_.begin() + static_cast<ptrdiff_t>(count));
        return count;
    }
    watch_.expect(PeerWatch::Expect::Bytes);
    auto got = channel_.read_some(into);
    watch_.expect(PeerWatch::Expect::Nothing);
    return got;
}

}  // namespace ferry::migration
