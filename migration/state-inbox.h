// SPDX-License-Identifier: BSD-2-Clause
// The destination's packets of device state that wait to be loaded: page channels bring them in any
// order, each device's loader takes them in theirs. Memory is bounded: who brings what does not fit
// waits, and reads nothing meanwhile.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "migration/device-state.h"
#include "migration/savevm.h"
#include "migration/state-ledger.h"

namespace ferry::migration {

// One load's. Any thread, unless said otherwise.
class StateInbox {
 public:
    // `lanes`: page channels. `awaits`, which must not block: once the main channel has ended, it
    // is told whether a device waits for packets.
    StateInbox(size_t lanes, std::function<void(bool)> awaits,
               uint64_t limit = kMaxQueuedStateBytes);
    ~StateInbox();
    StateInbox(const StateInbox&) = delete;
    StateInbox& operator=(const StateInbox&) = delete;

    // Load thread. The queue lives as long as this; its first buffers are made now.
    StateQueue& add(const SectionId& section, uint64_t limit, StateKinds kinds,
                    StateWriter::Via via);

    // Load thread: all queues there are were added. Packets wait for that.
    void set_up();

    // A lane's thread: a packet is announced. Waits until its data may be read, and says where to;
    // then it is filled.
    class Queue;
    struct Room {
        Queue* queue = nullptr;
        uint32_t index = 0;
        MutBytes data;
    };
    Result<Room> admit(size_t lane, const StateHeader& header,
                       std::span<const std::byte, kStatePlaceBytes> place);
    void filled(const Room& room);
    void lane_stands_at_barrier(size_t lane);
    void barrier_is_passed();
    void lane_ended(size_t lane);

    // Load thread: the main channel has ended, what is missing comes on page channels or never.
    void expect_the_rest();
    void expect_no_more();
    // Whoever waits ends with an error; the first one is kept.
    void fail(Error error);
    std::optional<Error> error() const;

 private:
    struct Buffer;

    Queue* find(const StateHeader& header) const;  // mutex_ held
    std::unique_ptr<Buffer> take_buffer();         // mutex_ held
    void note_change();                            // mutex_ held: somebody may go on, or nobody
    // `lane`: whose packet it is; nobody's: the main channel's.
    Result<Room> wait_for_room(std::unique_lock<std::mutex>& lock, std::optional<size_t> lane,
                               Queue& queue, StatePlace place, size_t bytes);

    const std::function<void(bool)> awaits_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    StateLedger ledger_;
    std::vector<std::unique_ptr<Queue>> queues_;
    std::vector<std::unique_ptr<Buffer>> free_;
    bool set_up_ = false;
    bool main_ended_ = false;
    std::optional<Error> error_;
};

}  // namespace ferry::migration
