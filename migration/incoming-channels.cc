// SPDX-License-Identifier: BSD-2-Clause
#include "migration/incoming-channels.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <thread>

#include "migration/multifd-packet.h"
#include "util/thread.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

namespace {

// Connections beyond the awaited ones that may be silent for a while.
constexpr size_t kSurplus = 16;
constexpr util::Nanoseconds kPeriod = std::chrono::milliseconds(200);

using Beginning = std::array<std::byte, kMultifdMagicBytes>;

Result<> read_beginning(MigrationChannel& channel, Beginning& into) {
    MutBytes room(into);
    while (!room.empty()) {
        MIG_TRY(const size_t got, channel.read_some(room));
        if (got == 0) return make_error(ErrorKind::PeerClosed, "closed before it said anything");
        room = room.subspan(got);
    }
    return {};
}

}  // namespace

// Shared with what is posted to the loop, which may come when the owner has gone.
class IncomingChannels::Collector : public std::enable_shared_from_this<Collector> {
 public:
    Collector(system::MainLoop& loop, util::Env& env, size_t pages,
              std::function<uint64_t()> limit_ms,
              std::move_only_function<void(IncomingSet)> complete)
        : loop_(loop),
          env_(env),
          pages_(pages),
          limit_ms_(std::move(limit_ms)),
          complete_(std::move(complete)) {}

    void add(std::unique_ptr<MigrationChannel> channel);
    void close(const Error& reason);

 private:
    // One that has not said yet what it is.
    struct Newcomer {
        std::unique_ptr<MigrationChannel> channel;
        Beginning begin{};
        std::jthread thread;
    };

    void identified(uint64_t who, const Result<>& read);
    void check_time();
    void refuse(const MigrationChannel& channel, std::string_view why) const;
    size_t known() const { return set_.pages.size() + (set_.main ? 1 : 0); }

    system::MainLoop& loop_;
    util::Env& env_;
    const size_t pages_;
    std::function<uint64_t()> limit_ms_;
    std::move_only_function<void(IncomingSet)> complete_;
    std::map<uint64_t, Newcomer> newcomers_;
    uint64_t next_newcomer_ = 0;
    IncomingSet set_;
    util::Nanoseconds begin_{};
    util::Registration timer_;
    bool closed_ = false;
};

void IncomingChannels::Collector::refuse(const MigrationChannel& channel,
                                         std::string_view why) const {
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("incoming connection {} closed: {}", channel.name(), why));
}

void IncomingChannels::Collector::add(std::unique_ptr<MigrationChannel> channel) {
    // Somebody who says nothing must not take the place of one who does.
    if (closed_ || known() > pages_ || newcomers_.size() > pages_ + kSurplus) {
        return refuse(*channel, "all channels of the migration are there");
    }
    if (newcomers_.empty() && known() == 0) {
        begin_ = env_.clock.now();
        timer_ = loop_.every(kPeriod, [weak = weak_from_this()] {
            // Not from within the timer's own callback, which must not destroy itself.
            if (const auto self = weak.lock()) {
                self->loop_.post([self] { self->check_time(); });
            }
        });
    }
    const uint64_t who = next_newcomer_++;
    Newcomer& one = newcomers_[who];
    one.channel = std::move(channel);
    auto thread = util::start_thread("mig/dst/accept", [self = weak_from_this(), &loop = loop_, who,
                                                        &one](const std::stop_token&) {
        auto read = read_beginning(*one.channel, one.begin);
        loop.post([self, who, read = std::move(read)] {
            if (const auto alive = self.lock()) alive->identified(who, read);
        });
    });
    if (!thread) {
        refuse(*one.channel, thread.error().message());
        newcomers_.erase(who);
        return;
    }
    one.thread = std::move(*thread);
}

void IncomingChannels::Collector::identified(uint64_t who, const Result<>& read) {
    const auto found = newcomers_.find(who);
    if (found == newcomers_.end()) return;
    found->second.thread.join();
    std::unique_ptr<MigrationChannel> channel = std::move(found->second.channel);
    const Beginning begin = found->second.begin;
    newcomers_.erase(found);
    const uint32_t magic = util::load_be32(begin.data());
    if (!read) {
        refuse(*channel, read.error().message());
    } else if (magic == kStreamMagic && !set_.main) {
        set_.main = std::move(channel);
        set_.main_begin.assign(begin.begin(), begin.end());
    } else if (magic == kMultifdMagic && set_.pages.size() < pages_) {
        set_.pages_begin_bytes = begin.size();
        set_.pages.push_back(std::move(channel));
    } else {
        refuse(*channel, fmt::format("it begins with {:#x}, which is not awaited", magic));
    }
    if (known() <= pages_) return;
    closed_ = true;
    timer_.reset();
    // The owner may destroy us from within.
    std::exchange(complete_, nullptr)(std::move(set_));
}

void IncomingChannels::Collector::check_time() {
    const uint64_t limit = limit_ms_();
    if (closed_ || limit == 0 || env_.clock.now() - begin_ < std::chrono::milliseconds(limit)) {
        return;
    }
    env_.log.log(
        util::LogLevel::Warning,
        fmt::format("incoming migration: only {} of {} connections came within {} ms "
                    "(x-peer-timeout) and said what they are; they are closed. The capability "
                    "multifd and the parameter multifd-channels must be the same on both sides",
                    known(), pages_ + 1, limit));
    close(make_error(ErrorKind::PeerFailed, "no complete set of connections within {} ms", limit));
    set_ = {};
    closed_ = false;
}

void IncomingChannels::Collector::close(const Error& reason) {
    closed_ = true;
    timer_.reset();
    for (auto& [who, one] : newcomers_) one.channel->shutdown(reason);
    newcomers_.clear();  // joins
}

IncomingChannels::IncomingChannels(system::MainLoop& loop, util::Env& env, size_t pages,
                                   std::function<uint64_t()> limit_ms,
                                   std::move_only_function<void(IncomingSet)> complete)
    : collector_(std::make_shared<Collector>(loop, env, pages, std::move(limit_ms),
                                             std::move(complete))) {}

IncomingChannels::~IncomingChannels() {
    collector_->close(make_error(ErrorKind::Cancelled, "the incoming migration has ended"));
}

void IncomingChannels::add(std::unique_ptr<MigrationChannel> channel) {
    collector_->add(std::move(channel));
}

}  // namespace ferry::migration
