// SPDX-License-Identifier: BSD-2-Clause
// Two ends in one process: for tests, and for embedders that move a VM within one process.
#include <algorithm>
#include <array>
#include <cassert>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

#include "migration/channel.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr size_t kCapacityBytes = size_t{1} << 20;  // per direction

// The bytes on their way from one end to the other.
class Ring {
 public:
    size_t used() const { return used_; }
    size_t room() const { return kCapacityBytes - used_; }

    size_t put(ConstBytes from) {
        const size_t tail = (head_ + used_) % kCapacityBytes;
        const size_t count = std::min({from.size(), room(), kCapacityBytes - tail});
        std::memcpy(&bytes_[tail], from.data(), count);
        used_ += count;
        return count;
    }
    size_t take(MutBytes into) {
        const size_t count = std::min({into.size(), used_, kCapacityBytes - head_});
        std::memcpy(into.data(), &bytes_[head_], count);
        head_ = (head_ + count) % kCapacityBytes;
        used_ -= count;
        return count;
    }

 private:
    std::unique_ptr<std::byte[]> bytes_ =
        std::make_unique_for_overwrite<std::byte[]>(kCapacityBytes);
    size_t head_ = 0;
    size_t used_ = 0;
};

enum class Writer : uint8_t { Open, Finished, Gone };
enum class Reader : uint8_t { Open, Gone };

struct Flow {
    Ring ring;
    Writer writer = Writer::Open;
    Reader reader = Reader::Open;
    std::condition_variable changed;
};

// What both ends share.
struct Link {
    std::mutex mutex;           // guards everything below; a leaf
    std::array<Flow, 2> flows;  // flows[i] is what end i reads
    std::array<std::optional<Error>, 2> reasons;
};

class MemoryChannel final : public MigrationChannel {
 public:
    MemoryChannel(std::shared_ptr<Link> link, size_t end, std::string name)
        : link_(std::move(link)),
          incoming_(link_->flows[end]),
          outgoing_(link_->flows[1 - end]),
          reason_(link_->reasons[end]),
          name_(std::move(name)) {}

    ~MemoryChannel() override {
        const std::lock_guard lock(link_->mutex);
        leave();
    }
    MemoryChannel(const MemoryChannel&) = delete;
    MemoryChannel& operator=(const MemoryChannel&) = delete;

    std::string_view name() const override { return name_; }
    Features features() const override { return {.duplex = true}; }
    Result<size_t> read_some(MutBytes into) override;
    Result<> write_all(std::span<const ConstBytes> parts) override;
    Result<> finish_writing() override;
    void shutdown(Error reason) noexcept override;

 private:
    Result<> write_part(ConstBytes part);
    void leave();  // mutex held

    const std::shared_ptr<Link> link_;
    Flow& incoming_;
    Flow& outgoing_;
    std::optional<Error>& reason_;
    const std::string name_;
};

Result<size_t> MemoryChannel::read_some(MutBytes into) {
    assert(!into.empty());
    std::unique_lock lock(link_->mutex);
    incoming_.changed.wait(lock, [this] {
        return reason_ || incoming_.ring.used() != 0 || incoming_.writer != Writer::Open;
    });
    if (reason_) return *reason_;
    if (incoming_.ring.used() == 0) {
        if (incoming_.writer == Writer::Finished) return size_t{0};
        return make_error(ErrorKind::PeerClosed, "{}: receiving: the other end is gone", name_);
    }
    const size_t count = incoming_.ring.take(into);
    bytes_read_.fetch_add(count, std::memory_order_relaxed);
    incoming_.changed.notify_all();
    return count;
}

Result<> MemoryChannel::write_all(std::span<const ConstBytes> parts) {
    {
        const std::lock_guard lock(link_->mutex);
        if (reason_) return *reason_;
        if (outgoing_.writer == Writer::Finished) {
            return make_error(ErrorKind::InvalidState, "{}: sending after the end", name_);
        }
    }
    for (const ConstBytes& part : parts) MIG_CHECK(write_part(part));
    return {};
}

Result<> MemoryChannel::write_part(ConstBytes part) {
    while (!part.empty()) {
        std::unique_lock lock(link_->mutex);
        outgoing_.changed.wait(lock, [this] {
            return reason_ || outgoing_.ring.room() != 0 || outgoing_.reader == Reader::Gone;
        });
        if (reason_) return *reason_;
        if (outgoing_.reader == Reader::Gone) {
            return make_error(ErrorKind::PeerClosed, "{}: sending: the other end is gone", name_);
        }
        const size_t count = outgoing_.ring.put(part);
        bytes_written_.fetch_add(count, std::memory_order_relaxed);
        outgoing_.changed.notify_all();
        part = part.subspan(count);
    }
    return {};
}

Result<> MemoryChannel::finish_writing() {
    const std::lock_guard lock(link_->mutex);
    if (reason_) return *reason_;
    outgoing_.writer = Writer::Finished;
    outgoing_.changed.notify_all();
    return {};
}

void MemoryChannel::shutdown(Error reason) noexcept {
    const std::lock_guard lock(link_->mutex);
    if (!reason_) reason_ = std::move(reason);
    leave();
}

void MemoryChannel::leave() {
    if (outgoing_.writer == Writer::Open) outgoing_.writer = Writer::Gone;
    incoming_.reader = Reader::Gone;
    outgoing_.changed.notify_all();
    incoming_.changed.notify_all();
}

}  // namespace

std::pair<std::unique_ptr<MigrationChannel>, std::unique_ptr<MigrationChannel>>
make_memory_channel_pair(const std::string& name) {
    const auto link = std::make_shared<Link>();
    return {std::make_unique<MemoryChannel>(link, 0, name),
            std::make_unique<MemoryChannel>(link, 1, name)};
}

}  // namespace ferry::migration
