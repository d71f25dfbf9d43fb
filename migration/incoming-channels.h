// SPDX-License-Identifier: BSD-2-Clause
// The connections of one incoming migration with multifd: tells the main channel from the page
// channels by what they begin with, and waits until all are there.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "migration/channel.h"
#include "system/main-loop.h"
#include "util/env.h"

namespace ferry::migration {

// What an incoming migration travels on.
struct IncomingSet {
    std::unique_ptr<MigrationChannel> main;
    std::vector<std::byte> main_begin;  // of its bytes, read already
    std::vector<std::unique_ptr<MigrationChannel>> pages;
    size_t pages_begin_bytes = 0;  // of each one's bytes, found right and read already: its magic
};

// Loop thread.
class IncomingChannels {
 public:
    // `complete`: called once, from the loop, with a main channel and `pages` others. What has not
    // become complete `limit_ms` after its first connection came is closed; 0 means never.
    IncomingChannels(system::MainLoop& loop, util::Env& env, size_t pages,
                     std::function<uint64_t()> limit_ms,
                     std::move_only_function<void(IncomingSet)> complete);
    ~IncomingChannels();
    IncomingChannels(const IncomingChannels&) = delete;
    IncomingChannels& operator=(const IncomingChannels&) = delete;

    // A connection more; closed when it is one too many, or begins with something else.
    void add(std::unique_ptr<MigrationChannel> channel);

 private:
    class Collector;
    const std::shared_ptr<Collector> collector_;
};

}  // namespace ferry::migration
