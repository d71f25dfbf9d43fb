// SPDX-License-Identifier: BSD-2-Clause
#include "migration/state-inbox.h"

#include <algorithm>
#include <array>

#include "util/try.h"

namespace ferry::migration {

namespace {
// Made before the pause for each device: one is filled while another is loaded.
constexpr size_t kBuffersPerDevice = 4;
// With more, the list of free buffers grows while packets come.
constexpr size_t kMaxExpectedDevices = 256;
}  // namespace

// Not cleared: pages that nobody writes to take no memory.
struct StateInbox::Buffer {
    std::unique_ptr<std::byte[]> memory =
        std::make_unique_for_overwrite<std::byte[]>(kMaxStateBytes);
};

class StateInbox::Queue final : public StateQueue {
 public:
    struct Slot {
        std::unique_ptr<Buffer> buffer;
        size_t bytes = 0;
        StatePacketKind kind = StatePacketKind::Data;
    };

    Queue(StateInbox& inbox, SectionId whose, StateLedger::Device number, StateKinds known,
          StateWriter::Via way)
        : section(std::move(whose)), device(number), kinds(known), via(way), inbox_(inbox) {
        slots.resize(StateLedger::kWindow);
    }

    void open() override;
    Result<std::optional<Packet>> next() override;
    void fail(Error error) override { inbox_.fail(std::move(error)); }
    Result<> read(LoadStream& in, size_t bytes) override;
    Result<> put(StatePacketKind kind) override;
    void finish() override;

    const SectionId section;
    const StateLedger::Device device;
    const StateKinds kinds;
    const StateWriter::Via via;
    std::vector<Slot> slots;  // guarded by the inbox's mutex, a ring by index

 private:
    Result<Room> next_room(StatePacketKind kind, size_t bytes);

    StateInbox& inbox_;
    std::unique_ptr<Buffer> loading_;  // the loader's
    uint32_t next_to_read_ = 0;        // load thread
};

StateInbox::StateInbox(size_t lanes, std::function<void(bool)> awaits, uint64_t limit)
    // QEMU's channels may swap as many packets as there are, at a barrier.
    : awaits_(std::move(awaits)),
      ledger_(lanes, std::max<uint64_t>(limit, (lanes + 1) * kMaxStateBytes), kMaxStateBytes) {
    free_.reserve(limit / kMaxStateBytes + kMaxExpectedDevices);
}
StateInbox::~StateInbox() = default;

StateQueue& StateInbox::add(const SectionId& section, uint64_t limit, StateKinds kinds,
                            StateWriter::Via via) {
    const std::lock_guard lock(mutex_);
    const auto bring = via == StateWriter::Via::PageChannels ? StateLedger::Bring::Lanes
                                                             : StateLedger::Bring::MainChannel;
    const auto device = ledger_.add_device(section.idstr, limit, bring);
    queues_.push_back(std::make_unique<Queue>(*this, section, device, kinds, via));
    for (size_t i = 0; i < kBuffersPerDevice; ++i) free_.push_back(std::make_unique<Buffer>());
    return *queues_.back();
}

StateInbox::Queue* StateInbox::find(const StateHeader& header) const {
    const auto found = std::ranges::find_if(queues_, [&](const auto& queue) {
        return queue->section.idstr == header.idstr &&
               queue->section.instance_id == header.instance_id;
    });
    return found == queues_.end() ? nullptr : found->get();
}

std::unique_ptr<StateInbox::Buffer> StateInbox::take_buffer() {
    if (free_.empty()) return std::make_unique<Buffer>();
    auto buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
}

void StateInbox::note_change() {
    if (!error_) {
        if (auto possible = ledger_.check_progress(); !possible) {
            error_ = std::move(possible).error();
        }
    }
    if (main_ended_) awaits_(ledger_.wants_packets());
    changed_.notify_all();
}

void StateInbox::set_up() {
    const std::lock_guard lock(mutex_);
    set_up_ = true;
    changed_.notify_all();
}

void StateInbox::fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    changed_.notify_all();
}

std::optional<Error> StateInbox::error() const {
    const std::lock_guard lock(mutex_);
    return error_;
}

void StateInbox::expect_the_rest() {
    const std::lock_guard lock(mutex_);
    main_ended_ = true;
    note_change();
}

void StateInbox::expect_no_more() {
    const std::lock_guard lock(mutex_);
    main_ended_ = false;
    awaits_(false);
}

// --- a lane's thread

Result<StateInbox::Room> StateInbox::admit(size_t lane, const StateHeader& header,
                                           std::span<const std::byte, kStatePlaceBytes> raw) {
    std::unique_lock lock(mutex_);
    // The main channel brings the setup, and nothing orders it against this one.
    changed_.wait(lock, [this] { return set_up_ || error_; });
    if (error_) return *error_;
    Queue* const queue = find(header);
    if (queue == nullptr) {
        return make_error(ErrorKind::Protocol,
                          "state of a device '{}' instance {}, which does not exist here",
                          header.idstr, header.instance_id);
    }
    if (queue->via != StateWriter::Via::PageChannels) {
        return make_error(ErrorKind::Protocol,
                          "device {}: its state comes on page channels, but is awaited on the main "
                          "one; x-migration-multifd-transfer must be the same on both sides",
                          header.idstr);
    }
    MIG_TRY(const StatePlace place, parse_state_place(raw, header.data_bytes, queue->kinds),
            "device {}", header.idstr);
    return wait_for_room(lock, lane, *queue, place, header.data_bytes);
}

Result<StateInbox::Room> StateInbox::wait_for_room(std::unique_lock<std::mutex>& lock,
                                                   std::optional<size_t> lane, Queue& queue,
                                                   StatePlace place, size_t bytes) {
    for (;;) {
        if (error_) return *error_;
        MIG_TRY(const auto answer, ledger_.ask(queue.device, place));
        if (answer == StateLedger::Answer::Admitted) break;
        if (lane) {
            ledger_.lane_waits(*lane, queue.device, place);
            note_change();
            if (error_) return *error_;
        }
        changed_.wait(lock);
    }
    if (lane) ledger_.set_lane(*lane, StateLedger::Lane::Busy);
    Queue::Slot& slot = queue.slots[place.index % StateLedger::kWindow];
    slot.buffer = take_buffer();
    slot.bytes = bytes;
    slot.kind = place.kind;
    return Room{
        .queue = &queue, .index = place.index, .data = MutBytes(slot.buffer->memory.get(), bytes)};
}

void StateInbox::filled(const Room& room) {
    const std::lock_guard lock(mutex_);
    ledger_.filled(room.queue->device, room.index);
    note_change();
}

void StateInbox::lane_stands_at_barrier(size_t lane) {
    const std::lock_guard lock(mutex_);
    ledger_.set_lane(lane, StateLedger::Lane::AtBarrier);
    note_change();
}

void StateInbox::barrier_is_passed() {
    const std::lock_guard lock(mutex_);
    ledger_.leave_barrier();
}

void StateInbox::lane_ended(size_t lane) {
    const std::lock_guard lock(mutex_);
    ledger_.set_lane(lane, StateLedger::Lane::Ended);
    note_change();
}

// --- a device's queue

void StateInbox::Queue::open() {
    const std::lock_guard lock(inbox_.mutex_);
    inbox_.ledger_.open(device);
    inbox_.note_change();
}

Result<std::optional<StateQueue::Packet>> StateInbox::Queue::next() {
    std::unique_lock lock(inbox_.mutex_);
    StateLedger& ledger = inbox_.ledger_;
    if (loading_) {
        ledger.loaded(device);
        inbox_.free_.push_back(std::move(loading_));
        inbox_.note_change();
    }
    const auto ready = [&] {
        return inbox_.error_ ||
               (ledger.is_open(device) && ledger.next(device) != StateLedger::Next::Missing);
    };
    inbox_.changed_.wait(lock, ready);
    if (inbox_.error_) return *inbox_.error_;
    if (ledger.complete(device)) return std::nullopt;
    const uint32_t index = ledger.next_index(device);
    Slot& slot = slots[index % StateLedger::kWindow];
    loading_ = std::move(slot.buffer);
    ledger.loading(device);
    return Packet{
        .index = index, .kind = slot.kind, .data = ConstBytes(loading_->memory.get(), slot.bytes)};
}

Result<StateInbox::Room> StateInbox::Queue::next_room(StatePacketKind kind, size_t bytes) {
    std::unique_lock lock(inbox_.mutex_);
    const StatePlace place{.index = next_to_read_, .kind = kind};
    MIG_TRY(const Room room, inbox_.wait_for_room(lock, std::nullopt, *this, place, bytes));
    ++next_to_read_;
    return room;
}

Result<> StateInbox::Queue::read(LoadStream& in, size_t bytes) {
    MIG_TRY(const Room room, next_room(StatePacketKind::Data, bytes));
    MIG_CHECK(in.bytes(room.data));
    inbox_.filled(room);
    return {};
}

Result<> StateInbox::Queue::put(StatePacketKind kind) {
    MIG_TRY(const Room room, next_room(kind, 0));
    inbox_.filled(room);
    return {};
}

void StateInbox::Queue::finish() {
    const std::lock_guard lock(inbox_.mutex_);
    inbox_.ledger_.finish(device);
    inbox_.note_change();
}

}  // namespace ferry::migration
