// SPDX-License-Identifier: BSD-2-Clause
#include "migration/multifd-send.h"

#include <algorithm>

#include "migration/zero-page.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::migration {

using system::kPageSize;

namespace {
// While a lane writes one, the next one waits for it.
constexpr size_t kBatchesPerLane = 2;
}  // namespace

Result<std::unique_ptr<MultifdSender>> MultifdSender::start(
    const std::vector<std::unique_ptr<MigrationChannel>>& channels, const Uuid& uuid,
    const Parameters& parameters, util::Env& env) {
    std::unique_ptr<MultifdSender> sender(new MultifdSender(parameters, env));
    const size_t batches = channels.size() * kBatchesPerLane + 1;
    for (size_t i = 0; i < batches; ++i) {
        sender->batches_.push_back(std::make_unique<Batch>());
        sender->free_.push_back(sender->batches_.back().get());
    }
    for (size_t i = 0; i < channels.size(); ++i) {
        const MultifdInit init = multifd_init(uuid, static_cast<uint8_t>(i));
        const std::array<ConstBytes, 1> parts{init};
        MIG_CHECK(channels[i]->write_all(parts), "page channel {}", i);
        auto lane = std::make_unique<Lane>();
        lane->index = i;
        lane->channel = channels[i].get();
        lane->parts.reserve(kMultifdMaxPages + 1);
        MIG_TRY(lane->compressor, PageCompressor::create(parameters), "page channel {}: {}", i,
                to_string(sender->compression_));
        sender->sent_.bytes += init.size();
        sender->lanes_.push_back(std::move(lane));
    }
    for (size_t i = 0; i < channels.size(); ++i) {
        Lane& lane = *sender->lanes_[i];
        MIG_TRY(lane.thread, util::start_thread("mig/src/send_" + std::to_string(i),
                                                [raw = sender.get(), &lane](
                                                    const std::stop_token&) { raw->run(lane); }));
    }
    return sender;
}

MultifdSender::~MultifdSender() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    work_.notify_all();
}

// --- migration thread

Result<> MultifdSender::add(const system::RamBlock& block, uint64_t offset, uint64_t pages) {
    for (uint64_t i = 0; i < pages; ++i) {
        if (filling_ != nullptr &&
            (filling_->block != &block || filling_->packet.normal_pages == kMultifdMaxPages)) {
            MIG_CHECK(queue_filling());
        }
        if (filling_ == nullptr) {
            std::unique_lock lock(mutex_);
            done_.wait(lock, [this] { return error_ || !free_.empty(); });
            if (error_) return *error_;
            filling_ = free_.back();
            free_.pop_back();
            filling_->block = &block;
            filling_->packet.normal_pages = 0;
        }
        MultifdPacket& packet = filling_->packet;
        packet.offsets.at(packet.normal_pages++) = offset + i * kPageSize;
    }
    return {};
}

Result<> MultifdSender::queue_filling() {
    Batch* const full = std::exchange(filling_, nullptr);
    {
        const std::lock_guard lock(mutex_);
        if (error_) return *error_;
        put(*full);
    }
    work_.notify_one();
    return {};
}

bool MultifdSender::idle() const {
    const std::lock_guard lock(mutex_);
    return first_ == nullptr && writing_ == 0;
}

Result<> MultifdSender::drain() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return error_ || (first_ == nullptr && writing_ == 0); });
    if (error_) return *error_;
    return {};
}

Result<> MultifdSender::sync() {
    if (filling_ != nullptr) MIG_CHECK(queue_filling());
    std::unique_lock lock(mutex_);
    ++syncs_wanted_;
    ahead_of_sync_ = queued_;
    work_.notify_all();
    done_.wait(lock, [this] {
        return error_ || std::ranges::all_of(lanes_, [this](const auto& lane) {
                   return lane->syncs == syncs_wanted_;
               });
    });
    if (error_) return *error_;
    return {};
}

MultifdSender::Sent MultifdSender::sent() const {
    const std::lock_guard lock(mutex_);
    Sent now = sent_;
    if (writing_ != 0) now.writing += env_.clock.now() - writing_since_;
    return now;
}

// --- any thread

Result<> MultifdSender::send(MultifdStatePacket& packet) {
    {
        const std::lock_guard lock(mutex_);
        if (error_) return *error_;
        put(packet);
    }
    work_.notify_one();
    return {};
}

void MultifdSender::put(MultifdWork& work) {
    work.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &work;
    last_ = &work;
    ++queued_;
}

bool MultifdSender::may_take(const Lane& lane) const {
    return first_ != nullptr && (ahead_of_sync_ != 0 || lane.syncs == syncs_wanted_);
}

bool MultifdSender::must_sync(const Lane& lane) const {
    return ahead_of_sync_ == 0 && lane.syncs != syncs_wanted_;
}

MultifdWork* MultifdSender::take() {
    MultifdWork* const work = first_;
    if (work == nullptr) return nullptr;
    first_ = work->next;
    --queued_;
    if (ahead_of_sync_ != 0) --ahead_of_sync_;
    return work;
}

// --- a lane's thread

void MultifdSender::run(Lane& lane) {
    std::unique_lock lock(mutex_);
    for (;;) {
        work_.wait(lock, [&] { return stopping_ || error_ || may_take(lane) || must_sync(lane); });
        if (stopping_ || error_) return drop_queue(lock);
        const bool sync = must_sync(lane);
        MultifdWork* const work = sync ? nullptr : take();
        // It may have been the last one ahead of a SYNC.
        if (lane.syncs != syncs_wanted_) work_.notify_all();
        if (!sync && writing_++ == 0) writing_since_ = env_.clock.now();
        uint64_t number = 0;
        if (sync) {
            number = next_packet_++;
        } else if (work->kind == MultifdWork::Kind::Pages) {
            static_cast<Batch*>(work)->packet.number = next_packet_++;
        }
        lock.unlock();
        auto sent = sync ? send_sync(lane, number) : write(lane, *work);
        lock.lock();
        if (!sent && !error_) error_ = std::move(sent).error();
        if (sync) {
            ++lane.syncs;
            sent_.bytes += kMultifdPacketBytes;
        } else {
            if (--writing_ == 0) sent_.writing += env_.clock.now() - writing_since_;
            written(*work, lock);
        }
        done_.notify_all();
        if (error_) work_.notify_all();
    }
}

Result<> MultifdSender::write(Lane& lane, MultifdWork& work) {
    if (work.kind == MultifdWork::Kind::Pages) return send_pages(lane, static_cast<Batch&>(work));
    return lane.channel->write_all(static_cast<MultifdStatePacket&>(work).parts());
}

void MultifdSender::written(MultifdWork& work, std::unique_lock<std::mutex>& lock) {
    if (work.kind == MultifdWork::Kind::Pages) {
        auto& batch = static_cast<Batch&>(work);
        sent_.normal_pages += batch.packet.normal_pages;
        sent_.zero_pages += batch.packet.zero_pages;
        sent_.bytes += kMultifdPacketBytes + batch.packet.data_bytes;
        free_.push_back(&batch);
        return;
    }
    auto& packet = static_cast<MultifdStatePacket&>(work);
    for (const ConstBytes part : packet.parts()) sent_.bytes += part.size();
    lock.unlock();
    packet.done();
    lock.lock();
}

// Whoever waits for a packet of its own to come back must not wait for ever.
void MultifdSender::drop_queue(std::unique_lock<std::mutex>& lock) {
    while (MultifdWork* const work = take()) {
        if (work->kind == MultifdWork::Kind::Pages) continue;
        lock.unlock();
        static_cast<MultifdStatePacket*>(work)->done();
        lock.lock();
    }
}

void MultifdSender::list_zero_pages(Batch& batch) const {
    MultifdPacket& packet = batch.packet;
    const MutBytes memory = batch.block->host();
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
    std::array<uint64_t, kMultifdMaxPages> zeros;
    uint32_t normal = 0;
    uint32_t zero = 0;
    // In order, since neighbours leave as one piece.
    for (const uint64_t offset : packet.normal()) {
        if (is_zero_page(memory.subspan(offset, kPageSize))) {
            zeros.at(zero++) = offset;
        } else {
            packet.offsets.at(normal++) = offset;
        }
    }
    std::copy_n(zeros.begin(), zero, packet.offsets.begin() + normal);
    packet.normal_pages = normal;
    packet.zero_pages = zero;
}

Result<> MultifdSender::send_pages(Lane& lane, Batch& batch) {
    MultifdPacket& packet = batch.packet;
    packet.flags = multifd_flags(compression_);
    packet.block = batch.block->name();
    packet.zero_pages = 0;
    if (detection_ == ZeroPageDetection::Multifd) list_zero_pages(batch);
    lane.parts.clear();
    lane.parts.emplace_back(lane.header);
    packet.data_bytes = static_cast<uint32_t>(packet.normal_pages * kPageSize);
    if (!lane.compressor) {
        put_pages(lane, batch);
    } else if (packet.normal_pages != 0) {
        MIG_TRY(
            const ConstBytes data, lane.compressor->compress(batch.block->host(), packet.normal()),
            "page channel {}: packet {}: {}", lane.index, packet.number, to_string(compression_));
        packet.data_bytes = static_cast<uint32_t>(data.size());
        lane.parts.push_back(data);
    }
    put_multifd_packet(lane.header, packet);
    return lane.channel->write_all(lane.parts);
}

// As they are in the guest's memory; neighbours as one piece.
void MultifdSender::put_pages(Lane& lane, const Batch& batch) {
    const std::byte* const memory = batch.block->host().data();
    for (const uint64_t offset : batch.packet.normal()) {
        const ConstBytes page(memory + offset, kPageSize);
        ConstBytes& last = lane.parts.back();
        if (lane.parts.size() > 1 && last.data() + last.size() == page.data()) {
            last = {last.data(), last.size() + kPageSize};
        } else {
            lane.parts.push_back(page);
        }
    }
}

Result<> MultifdSender::send_sync(Lane& lane, uint64_t number) {
    MultifdPacket packet;
    packet.flags = kMultifdSync;
    packet.number = number;
    put_multifd_packet(lane.header, packet);
    const std::array<ConstBytes, 1> parts{lane.header};
    return lane.channel->write_all(parts);
}

}  // namespace ferry::migration
