// SPDX-License-Identifier: BSD-2-Clause
// The source's page channels: whoever comes to a page hands it to the next channel that is free.
// docs/devel/multifd.rst draws the queue and says why it is ordered enough.
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
#include "util/env.h"

namespace ferry::migration {

// Something in the queue.
struct MultifdWork {
    enum class Kind : uint8_t { Pages, DeviceState };
    explicit MultifdWork(Kind k) : kind(k) {}
    const Kind kind;
    MultifdWork* next = nullptr;
};

// A packet of device state, whose owner keeps it until it is done.
class MultifdStatePacket : public MultifdWork {
 public:
    MultifdStatePacket() : MultifdWork(Kind::DeviceState) {}
    virtual ~MultifdStatePacket() = default;
    virtual std::array<ConstBytes, 2> parts() const = 0;  // header and data
    // A lane's thread: it is written, or will never be.
    virtual void done() noexcept = 0;
};

// Used by the migration thread, but for send(); destroyed when that has ended.
class MultifdSender {
 public:
    // Sends INIT on every channel and starts its thread (mig/src/send_N). The channels must outlive
    // this; shutting them down wakes the threads.
    static Result<std::unique_ptr<MultifdSender>> start(
        const std::vector<std::unique_ptr<MigrationChannel>>& channels, const Uuid& uuid,
        const Parameters& parameters, util::Env& env);
    // Leaves out what has not been synced.
    ~MultifdSender();
    MultifdSender(const MultifdSender&) = delete;
    MultifdSender& operator=(const MultifdSender&) = delete;

    // Takes `pages` pages of the block from `offset` on; waits while all channels are behind. The
    // memory is read later, so a page may go out in parts old and new: it must be dirty again then.
    Result<> add(const system::RamBlock& block, uint64_t offset, uint64_t pages);
    // What was added is written, on all channels, and a SYNC behind it.
    Result<> sync();
    // Any thread: puts the packet into the queue. After an Error it is not in it.
    Result<> send(MultifdStatePacket& packet);
    // Waits until nothing is left in the queue and all of it is written.
    Result<> drain();
    bool idle() const;  // nothing is left now

    struct Sent {
        uint64_t bytes = 0;
        uint64_t normal_pages = 0;
        uint64_t zero_pages = 0;
        util::Nanoseconds writing{};  // time in which one channel or more had something to write
    };
    Sent sent() const;

 private:
    struct Lane {
        size_t index = 0;
        MigrationChannel* channel = nullptr;
        uint64_t syncs = 0;  // written
        MultifdHeader header;
        std::vector<ConstBytes> parts;
        std::unique_ptr<PageCompressor> compressor;  // null: pages go as they are
        std::jthread thread;
    };
    // Pages of one block, not looked at yet.
    struct Batch : MultifdWork {
        Batch() : MultifdWork(Kind::Pages) {}
        const system::RamBlock* block = nullptr;
        MultifdPacket packet;
    };

    MultifdSender(const Parameters& parameters, util::Env& env)
        : detection_(static_cast<ZeroPageDetection>(parameters.zero_page_detection)),
          compression_(static_cast<MultifdCompression>(parameters.multifd_compression)),
          env_(env) {}
    void run(Lane& lane);
    void put(MultifdWork& work);  // mutex_ held
    MultifdWork* take();          // mutex_ held; null: nothing there
    bool may_take(const Lane& lane) const;
    bool must_sync(const Lane& lane) const;
    void drop_queue(std::unique_lock<std::mutex>& lock);
    Result<> write(Lane& lane, MultifdWork& work);
    void written(MultifdWork& work, std::unique_lock<std::mutex>& lock);
    Result<> send_pages(Lane& lane, Batch& batch);
    Result<> send_sync(Lane& lane, uint64_t number);
    void list_zero_pages(Batch& batch) const;
    static void put_pages(Lane& lane, const Batch& batch);
    Result<> queue_filling();  // mutex_ not held

    const ZeroPageDetection detection_;
    const MultifdCompression compression_;
    util::Env& env_;
    std::vector<std::unique_ptr<Batch>> batches_;
    Batch* filling_ = nullptr;  // migration thread's

    mutable std::mutex mutex_;
    std::condition_variable work_;  // for the lanes
    std::condition_variable done_;  // for the migration thread
    std::vector<Batch*> free_;
    MultifdWork* first_ = nullptr;  // the queue
    MultifdWork* last_ = nullptr;
    size_t queued_ = 0;
    // How much of the queue goes ahead of the wanted SYNC. What comes later waits for the SYNC of
    // its channel: else of two packets of a device the second might be ahead of one channel's SYNC
    // and the first behind that of another, and a destination without room would get to neither.
    size_t ahead_of_sync_ = 0;
    size_t writing_ = 0;  // lanes that have something of it
    util::Nanoseconds writing_since_{};
    uint64_t syncs_wanted_ = 0;
    uint64_t next_packet_ = 0;
    bool stopping_ = false;
    std::optional<Error> error_;
    Sent sent_;
    std::vector<std::unique_ptr<Lane>> lanes_;  // last: joined before the rest goes
};

}  // namespace ferry::migration
