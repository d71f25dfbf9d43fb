// SPDX-License-Identifier: BSD-2-Clause
// The destination's page channels: each has a thread that puts pages where they belong. See
// docs/devel/multifd.rst for the barrier between them and the main channel.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "migration/channel.h"
#include "migration/multifd-codec.h"
#include "migration/multifd-packet.h"
#include "migration/peer-watch.h"
#include "migration/state-inbox.h"

namespace ferry::migration {

class RamLoader;
class RamTarget;

// Made, used and destroyed by the load thread.
class MultifdReceiver {
 public:
    // Starts a thread for every channel (mig/dst/recv_N), which takes its INIT first. Of each
    // channel's bytes the first `begin_bytes` (none, or the magic) have been read. Pages must come
    // compressed as `compression` says. Channels and watch must outlive this.
    static Result<std::unique_ptr<MultifdReceiver>> start(
        const std::vector<std::unique_ptr<MigrationChannel>>& channels, size_t begin_bytes,
        const Uuid& uuid, MultifdCompression compression, PeerWatch& watch, StateInbox& inbox);
    // The channels have been shut down.
    ~MultifdReceiver();
    MultifdReceiver(const MultifdReceiver&) = delete;
    MultifdReceiver& operator=(const MultifdReceiver&) = delete;

    // The block list is known: pages may come. `ram` must outlive this.
    void open(RamLoader& ram);
    // Waits for the next SYNC on every channel, then lets them go on.
    Result<> barrier();
    // The first error of a channel, which goes on taking bytes so that the source can be told.
    Result<> check() const;

 private:
    struct Lane {
        size_t index = 0;
        MigrationChannel* channel = nullptr;
        uint64_t syncs = 0;  // received
        bool ended = false;  // orderly
        MultifdHeader header;
        MultifdPacket packet;
        std::unique_ptr<PageDecompressor> decompressor;  // null: pages come as they are
        std::jthread thread;
    };

    MultifdReceiver(MultifdCompression compression, PeerWatch& watch, StateInbox& inbox)
        : compression_(compression), watch_(watch), inbox_(inbox) {}
    void run(Lane& lane);
    Result<> receive(Lane& lane);
    Result<> take_init(Lane& lane);
    // False when the channel ended between two packets.
    Result<bool> take_packet(Lane& lane);
    Result<> take_pages(Lane& lane);
    Result<> take_device_state(Lane& lane);
    Result<> place_pages(Lane& lane);
    Result<> place_normal_pages(Lane& lane, RamTarget& target);
    // What the channel brings next, to where it belongs.
    Result<> take_run(Lane& lane, MutBytes run);
    Result<> pass_barrier(Lane& lane);

    const MultifdCompression compression_;
    PeerWatch& watch_;
    StateInbox& inbox_;
    Uuid uuid_{};
    size_t begin_bytes_ = 0;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    RamLoader* ram_ = nullptr;  // set once
    uint64_t released_ = 0;     // barriers
    bool stopping_ = false;
    std::optional<Error> error_;
    std::vector<bool> seen_;                    // numbers of INIT
    std::vector<std::unique_ptr<Lane>> lanes_;  // last: joined before the rest goes
};

}  // namespace ferry::migration
