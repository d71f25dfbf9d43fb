// SPDX-License-Identifier: BSD-2-Clause
#include "migration/multifd-recv.h"

#include <algorithm>

#include "migration/ram-load.h"
#include "util/thread.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

using system::kPageSize;

namespace {

// What tells the two kinds of packets apart.
constexpr size_t kPacketBeginBytes = 12;
constexpr size_t kFlagsAt = 8;
constexpr size_t kDiscardBytes = size_t{64} * 1024;

// False at the end of the stream, if that comes before the first byte.
Result<bool> read_exactly(MigrationChannel& channel, MutBytes into) {
    const size_t wanted = into.size();
    while (!into.empty()) {
        MIG_TRY(const size_t got, channel.read_some(into));
        if (got == 0 && into.size() == wanted) return false;
        if (got == 0) {
            return make_error(ErrorKind::PeerClosed, "closed {} bytes before a packet's end",
                              into.size());
        }
        into = into.subspan(got);
    }
    return true;
}

Result<> read_all(MigrationChannel& channel, MutBytes into) {
    if (into.empty()) return {};
    MIG_TRY(const bool more, read_exactly(channel, into));
    if (!more) return make_error(ErrorKind::PeerClosed, "closed in the middle of a packet");
    return {};
}

// So that a source that waits for room goes on to where it hears of the error.
void discard_the_rest(MigrationChannel& channel) {
    std::vector<std::byte> room(kDiscardBytes);
    for (;;) {
        const auto got = channel.read_some(room);
        if (!got || *got == 0) return;
    }
}

}  // namespace

Result<std::unique_ptr<MultifdReceiver>> MultifdReceiver::start(
    const std::vector<std::unique_ptr<MigrationChannel>>& channels, size_t begin_bytes,
    const Uuid& uuid, MultifdCompression compression, PeerWatch& watch, StateInbox& inbox) {
    std::unique_ptr<MultifdReceiver> receiver(new MultifdReceiver(compression, watch, inbox));
    receiver->uuid_ = uuid;
    receiver->begin_bytes_ = begin_bytes;
    receiver->seen_.resize(channels.size());
    for (size_t i = 0; i < channels.size(); ++i) {
        auto lane = std::make_unique<Lane>();
        lane->index = i;
        lane->channel = channels[i].get();
        MIG_TRY(lane->decompressor, PageDecompressor::create(compression), "page channel {}: {}", i,
                to_string(compression));
        receiver->lanes_.push_back(std::move(lane));
    }
    for (const auto& lane : receiver->lanes_) {
        auto thread = util::start_thread(
            "mig/dst/recv_" + std::to_string(lane->index),
            [raw = receiver.get(), &one = *lane](const std::stop_token&) { raw->run(one); });
        if (!thread) {
            inbox.fail(thread.error());
            for (const auto& channel : channels) channel->shutdown(thread.error());
            return std::move(thread).error();
        }
        lane->thread = std::move(*thread);
    }
    return receiver;
}

MultifdReceiver::~MultifdReceiver() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
}

// --- load thread

void MultifdReceiver::open(RamLoader& ram) {
    {
        const std::lock_guard lock(mutex_);
        ram_ = &ram;
    }
    changed_.notify_all();
}

Result<> MultifdReceiver::barrier() {
    watch_.expect(PeerWatch::Expect::Bytes);
    std::unique_lock lock(mutex_);
    const uint64_t wanted = released_ + 1;
    const auto arrived = [&](const auto& lane) { return lane->syncs >= wanted; };
    const auto lost = [&](const auto& lane) { return lane->ended && !arrived(lane); };
    changed_.wait(lock, [&] {
        return error_ || std::ranges::all_of(lanes_, arrived) || std::ranges::any_of(lanes_, lost);
    });
    watch_.expect(PeerWatch::Expect::Nothing);
    if (error_) return *error_;
    if (const auto found = std::ranges::find_if(lanes_, lost); found != lanes_.end()) {
        return make_error(ErrorKind::PeerClosed,
                          "page channel {}: the source closed it before the round was over",
                          (*found)->index);
    }
    released_ = wanted;
    inbox_.barrier_is_passed();
    changed_.notify_all();
    return {};
}

Result<> MultifdReceiver::check() const {
    const std::lock_guard lock(mutex_);
    if (error_) return *error_;
    return {};
}

// --- a lane's thread

void MultifdReceiver::run(Lane& lane) {
    auto received = receive(lane);
    const bool broken = !received;
    if (broken) {
        // If it is not the first, it may be one that the channel was told: the first is kept.
        inbox_.fail(
            std::move(received).error().context("page channel " + std::to_string(lane.index)));
    } else {
        inbox_.lane_ended(lane.index);
    }
    {
        const std::lock_guard lock(mutex_);
        lane.ended = true;
        if (broken && !error_) error_ = inbox_.error();
    }
    changed_.notify_all();
    if (broken) discard_the_rest(*lane.channel);
}

Result<> MultifdReceiver::receive(Lane& lane) {
    MIG_CHECK(take_init(lane), "its first packet");
    for (;;) {
        MIG_TRY(const bool more, take_packet(lane));
        if (!more) return {};
    }
}

Result<> MultifdReceiver::take_init(Lane& lane) {
    MultifdInit raw{};
    util::store_be32(raw.data(), kMultifdMagic);
    MIG_CHECK(read_all(*lane.channel, MutBytes(raw).subspan(begin_bytes_)));
    MIG_TRY(const uint8_t number, parse_multifd_init(raw, uuid_, lanes_.size()));
    const std::lock_guard lock(mutex_);
    if (seen_[number]) return make_error(ErrorKind::Protocol, "number {} comes twice", number);
    seen_[number] = true;
    return {};
}

Result<bool> MultifdReceiver::take_packet(Lane& lane) {
    const MutBytes raw(lane.header);
    MIG_TRY(const bool more, read_exactly(*lane.channel, raw.first(kPacketBeginBytes)));
    if (!more) return false;
    const bool state = (util::load_be32(raw.data() + kFlagsAt) & kMultifdDeviceState) != 0;
    MIG_CHECK(state ? take_device_state(lane) : take_pages(lane));
    return true;
}

Result<> MultifdReceiver::take_pages(Lane& lane) {
    MIG_CHECK(read_all(*lane.channel, MutBytes(lane.header).subspan(kPacketBeginBytes)));
    MIG_CHECK(parse_multifd_packet(lane.header, compression_, lane.packet));
    MIG_CHECK(place_pages(lane), "packet {}", lane.packet.number);
    return (lane.packet.flags & kMultifdSync) != 0 ? pass_barrier(lane) : Result<>();
}

// Nothing of its data is read before there is room for them.
Result<> MultifdReceiver::take_device_state(Lane& lane) {
    const std::span header(lane.header);
    const auto begin = header.first<kStateHeaderBytes>();
    const auto place = header.subspan<kStateHeaderBytes, kStatePlaceBytes>();
    MIG_CHECK(read_all(*lane.channel, MutBytes(begin).subspan(kPacketBeginBytes)));
    MIG_TRY(const StateHeader state, parse_state_header(begin));
    MIG_CHECK(read_all(*lane.channel, place));
    MIG_TRY(const StateInbox::Room room, inbox_.admit(lane.index, state, place));
    MIG_CHECK(read_all(*lane.channel, room.data), "device {}: packet {}", state.idstr, room.index);
    inbox_.filled(room);
    return {};
}

Result<> MultifdReceiver::place_pages(Lane& lane) {
    const MultifdPacket& packet = lane.packet;
    if (packet.normal_pages + packet.zero_pages == 0) return {};
    RamLoader* ram = nullptr;
    {
        // The main channel brings the list of blocks, and nothing orders it against this one.
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || error_ || ram_ != nullptr; });
        if (ram_ == nullptr) return make_error(ErrorKind::Cancelled, "no RAM was announced");
        ram = ram_;
    }
    RamTarget* const target = ram->find_listed(packet.block);
    if (target == nullptr) {
        return make_error(ErrorKind::Protocol, "block '{}' was not announced", packet.block);
    }
    if (packet.normal_pages != 0) MIG_CHECK(place_normal_pages(lane, *target));
    for (const uint64_t offset : packet.zero()) MIG_CHECK(target->clear_page(offset));
    return {};
}

Result<> MultifdReceiver::place_normal_pages(Lane& lane, RamTarget& target) {
    if (lane.decompressor) {
        MIG_CHECK(read_all(*lane.channel, lane.decompressor->room(lane.packet.data_bytes)),
                  "block '{}'", lane.packet.block);
    }
    MutBytes run;
    for (const uint64_t offset : lane.packet.normal()) {
        MIG_TRY(const MutBytes page, target.page(offset));
        if (run.data() + run.size() == page.data()) {
            run = {run.data(), run.size() + page.size()};
            continue;
        }
        MIG_CHECK(take_run(lane, run));
        run = page;
    }
    MIG_CHECK(take_run(lane, run));
    if (lane.decompressor) {
        MIG_CHECK(lane.decompressor->finish(), "block '{}': {}", lane.packet.block,
                  to_string(compression_));
    }
    return {};
}

Result<> MultifdReceiver::take_run(Lane& lane, MutBytes run) {
    const std::string_view block = lane.packet.block;
    if (!lane.decompressor) {
        MIG_CHECK(read_all(*lane.channel, run), "block '{}'", block);
    } else {
        MIG_CHECK(lane.decompressor->fill(run), "block '{}': {}", block, to_string(compression_));
    }
    return {};
}

Result<> MultifdReceiver::pass_barrier(Lane& lane) {
    std::unique_lock lock(mutex_);
    ++lane.syncs;
    inbox_.lane_stands_at_barrier(lane.index);
    changed_.notify_all();
    changed_.wait(lock, [&] { return stopping_ || error_ || released_ >= lane.syncs; });
    return {};
}

}  // namespace ferry::migration
