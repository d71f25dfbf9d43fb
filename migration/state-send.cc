// SPDX-License-Identifier: BSD-2-Clause
#include "migration/state-send.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "migration/multifd-send.h"
#include "migration/state-packet.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::migration {

namespace {
// One is read from the device while others are on their way.
constexpr size_t kBuffersPerDevice = 4;
constexpr util::Nanoseconds kPeriod = std::chrono::milliseconds(250);
}  // namespace

struct StateSender::Buffer final : MultifdStatePacket {
    Buffer(StateSender& s, Device& d, size_t bytes) : sender(s), device(d), memory(bytes) {}
    std::array<ConstBytes, 2> parts() const override {
        return {ConstBytes(begin), ConstBytes(memory).first(filled)};
    }
    void done() noexcept override { sender.give_back(*this); }

    StateSender& sender;
    Device& device;
    StatePacketBegin begin{};
    std::vector<std::byte> memory;
    size_t filled = 0;
    StatePacketKind kind = StatePacketKind::Data;
};

// Writer of one device, and its thread.
class StateSender::Device final : public StateWriter {
 public:
    Device(StateSender& all, const SaveVMRegistry::Entry& whose, DeviceStateHandlers& does, Via way,
           size_t bytes)
        : entry(whose), handlers(does), sender_(all), via_(way) {
        for (size_t i = 0; i < kBuffersPerDevice; ++i) {
            buffers_.push_back(std::make_unique<Buffer>(all, *this, bytes));
            free.push_back(buffers_.back().get());
        }
        blocks.reserve(kBuffersPerDevice);
    }

    Via via() const override { return via_; }

    Result<MutBytes> room() override {
        std::unique_lock lock(sender_.mutex_);
        sender_.changed_.wait(
            lock, [this] { return sender_.error_ || filling_ != nullptr || !free.empty(); });
        if (sender_.error_) return make_error(ErrorKind::Cancelled, "the migration has failed");
        if (filling_ == nullptr) {
            filling_ = free.back();
            free.pop_back();
        }
        return MutBytes(filling_->memory);
    }

    Result<> send(size_t bytes, StatePacketKind kind) override {
        if (filling_ == nullptr) MIG_CHECK(room());
        Buffer& buffer = *std::exchange(filling_, nullptr);
        buffer.filled = bytes;
        buffer.kind = kind;
        if (via_ == Via::PageChannels) {
            put_state_packet(buffer.begin,
                             {.idstr = entry.section().idstr,
                              .instance_id = entry.section().instance_id,
                              .data_bytes = static_cast<uint32_t>(bytes)},
                             {.index = next_index_++, .kind = kind});
            return sender_.lanes_->send(buffer);
        }
        {
            const std::lock_guard lock(sender_.mutex_);
            blocks.push_back(&buffer);
        }
        sender_.changed_.notify_all();
        return {};
    }

    const SaveVMRegistry::Entry& entry;
    DeviceStateHandlers& handlers;
    std::vector<Buffer*> free;    // guarded by the sender's mutex, as what follows
    std::vector<Buffer*> blocks;  // filled, for the main channel; in order
    bool through = false;

 private:
    StateSender& sender_;
    const Via via_;
    std::vector<std::unique_ptr<Buffer>> buffers_;
    Buffer* filling_ = nullptr;
    uint32_t next_index_ = 0;

 public:
    std::jthread thread;  // last: joined before the rest goes
};

StateSender::StateSender(MultifdSender* lanes, util::Env& env) : lanes_(lanes), env_(env) {}

StateSender::~StateSender() {
    stop();
}

void StateSender::abandon() {
    fail(make_error(ErrorKind::Cancelled, "the migration has ended"));
}

void StateSender::stop() {
    abandon();
    for (const auto& device : devices_) {
        if (device->thread.joinable()) device->thread.join();
    }
}

void StateSender::fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    changed_.notify_all();
}

void StateSender::give_back(Buffer& buffer) {
    {
        const std::lock_guard lock(mutex_);
        buffer.device.free.push_back(&buffer);
    }
    changed_.notify_all();
}

Result<StateWriter*> StateSender::add(const SaveVMRegistry::Entry& entry,
                                      DeviceStateHandlers& handlers, size_t bytes,
                                      StateWriter::Via via) {
    auto device = std::make_unique<Device>(*this, entry, handlers, via, bytes);
    MIG_TRY(device->thread,
            util::start_thread("mig/src/save_" + std::to_string(devices_.size()),
                               [this, one = device.get()](const std::stop_token&) { run(*one); }));
    devices_.push_back(std::move(device));
    return devices_.back().get();
}

void StateSender::run(Device& device) {
    {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return begun_ || error_; });
        if (error_) return;
    }
    auto saved = device.handlers.save_live_complete_precopy_thread(device);
    const std::lock_guard lock(mutex_);
    if (!saved && !error_) {
        error_ = std::move(saved).error().context("section '" + device.entry.section().idstr + "'");
    }
    device.through = true;
    changed_.notify_all();
}

// --- migration thread

void StateSender::begin() {
    const std::lock_guard lock(mutex_);
    begun_ = true;
    changed_.notify_all();
}

template <typename Ready>
Result<> StateSender::wait(std::unique_lock<std::mutex>& lock, Ready ready,
                           const std::function<Result<>()>& each_period) {
    while (!error_ && !ready()) {
        const auto deadline = env_.clock.now() + kPeriod;
        env_.clock.wait_until(changed_, lock, deadline);
        if (error_ || ready() || env_.clock.now() < deadline) continue;
        lock.unlock();
        auto well = each_period();
        lock.lock();
        if (!well && !error_) error_ = std::move(well).error();
        changed_.notify_all();
    }
    if (error_) return *error_;
    return {};
}

StateSender::Device* StateSender::next_with_block() {
    for (size_t i = 0; i < devices_.size(); ++i) {
        Device& device = *devices_[(turn_ + i) % devices_.size()];
        if (device.blocks.empty()) continue;
        return &device;
    }
    return nullptr;
}

Result<> StateSender::send_block(Device& device, SaveStream& out,
                                 std::unique_lock<std::mutex>& lock) {
    Buffer& block = *device.blocks.front();
    device.blocks.erase(device.blocks.begin());
    lock.unlock();
    auto sent = device.handlers.save_state_block(out, block.kind,
                                                 ConstBytes(block.memory).first(block.filled));
    if (sent) sent = out.flush();
    give_back(block);
    lock.lock();
    return sent;
}

Result<> StateSender::forward(SaveStream& out, const std::function<Result<>()>& each_period) {
    const auto through = [](const auto& device) {
        return device->through || device->via() == StateWriter::Via::PageChannels;
    };
    std::unique_lock lock(mutex_);
    for (;;) {
        Device* device = nullptr;
        MIG_CHECK(wait(
            lock,
            [&] {
                device = next_with_block();
                return device != nullptr || std::ranges::all_of(devices_, through);
            },
            each_period));
        if (device == nullptr) return {};
        ++turn_;  // another one's
        MIG_CHECK(
            save_section(out, device->entry, SectionKind::Part, [&](SaveStream& to) -> Result<> {
                MIG_CHECK(send_block(*device, to, lock));
                return device->entry.handlers->save_live_complete_precopy(to);
            }));
    }
}

Result<> StateSender::forward_device(const SaveVMRegistry::Entry& entry, SaveStream& out,
                                     const std::function<Result<>()>& each_period) {
    const auto found = std::ranges::find_if(
        devices_, [&](const auto& device) { return &device->entry == &entry; });
    if (found == devices_.end()) return {};
    Device& device = **found;
    if (device.via() == StateWriter::Via::PageChannels) return {};
    std::unique_lock lock(mutex_);
    for (;;) {
        MIG_CHECK(
            wait(lock, [&] { return device.through || !device.blocks.empty(); }, each_period));
        if (device.blocks.empty()) return {};
        MIG_CHECK(send_block(device, out, lock));
    }
}

Result<> StateSender::finish(const std::function<Result<>()>& each_period) {
    {
        std::unique_lock lock(mutex_);
        MIG_CHECK(wait(
            lock,
            [this] {
                return std::ranges::all_of(devices_, [](const auto& one) { return one->through; });
            },
            each_period));
    }
    return lanes_ == nullptr ? Result<>() : lanes_->drain();
}

}  // namespace ferry::migration
