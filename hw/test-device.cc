// SPDX-License-Identifier: BSD-2-Clause
#include "hw/test-device.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <optional>

#include "hw/dma-log.h"
#include "hw/test-device-dma.h"
#include "hw/test-device-image.h"
#include "hw/test-device-registers.h"
#include "util/thread.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::hw {

using namespace test_device_reg;
using vfio::MigState;

namespace {

// Changes and interrupts, but not DMA, go on in the P2P states.
bool works_in(MigState state) {
    switch (state) {
        case MigState::Running:
        case MigState::RunningP2P:
        case MigState::PreCopy:
        case MigState::PreCopyP2P: return true;
        case MigState::Error:
        case MigState::Stop:
        case MigState::StopCopy:
        case MigState::Resuming: return false;
    }
    return false;
}

bool does_dma_in(MigState state) {
    return state == MigState::Running || state == MigState::PreCopy;
}

// Waiting for the injected clock, until somebody closes it. One waiting thread.
class ClockWait {
 public:
    explicit ClockWait(util::Clock& clock) : clock_(clock) {}
    // Whether the deadline came; otherwise it is closed.
    bool until(util::Nanoseconds deadline) {
        std::unique_lock lock(mutex_);
        while (!closed_ && clock_.now() < deadline) clock_.wait_until(wake_, lock, deadline);
        return !closed_;
    }
    void close() {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        wake_.notify_all();
    }

 private:
    util::Clock& clock_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool closed_ = false;
};

// Small steps cost little each and keep the last one, which a stop waits for, short.
util::Nanoseconds tick_period(const TestDeviceConfig& config) {
    using std::chrono::milliseconds;
    constexpr uint64_t kStepBytes = 256 << 10, kStepPages = 16, kMsPerS = 1000;
    uint64_t ms = 100;
    if (config.dirty_bytes_per_s != 0) {
        ms = std::min(ms, kStepBytes * kMsPerS / config.dirty_bytes_per_s);
    }
    if (config.dma_pages_per_s != 0) {
        ms = std::min(ms, kStepPages * kMsPerS / config.dma_pages_per_s);
    }
    return milliseconds(std::max<uint64_t>(ms, 1));
}

class TestDeviceModel final : public TestDevice {
 public:
    TestDeviceModel(TestDeviceConfig config, util::Env& env, std::string name,
                    TestDeviceState state);
    ~TestDeviceModel() override { stop_waiting(); }
    Result<> start_ticking();

    void connect(DmaAccess& dma, IrqSink& irqs) override;
    vfio::DeviceInfo info() const override;
    vfio::RegionInfo region_info(uint32_t region) const override;
    vfio::IrqInfo irq_info(uint32_t index) const override;
    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override;
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override;
    Result<> reset() override;

    vfio::MigCaps migration_caps() const override { return config_.caps; }
    ArcResult enter(MigState from, MigState to) override;
    Result<size_t> save_read(MigState state, MutBytes into) override;
    vfio::PrecopyInfo precopy_info() override;
    Result<size_t> load_write(ConstBytes from) override;
    Result<uint64_t> stop_copy_bytes() override;

    bool dma_logging_supported() const override;
    Result<> dma_logging_start(std::span<const vfio::DmaLogRange> ranges,
                               uint64_t page_size) override;
    Result<> dma_logging_report(vfio::DmaLogRange range, uint64_t page_size,
                                util::Bitmap& out) override;
    Result<> dma_logging_stop() override;

    void change_state(uint64_t bytes) override;
    uint64_t state_digest() const override;
    void stop_waiting() override;

 private:
    util::Nanoseconds latency(MigState from, MigState to) const;
    MutBytes memory_behind(uint32_t region, uint64_t offset, uint64_t length);
    void write_register(uint32_t reg, uint32_t value);
    void raise(uint32_t vector);
    void age();
    void age_locked(util::Nanoseconds now);
    void switch_sessions(MigState from, MigState to);
    void reset_table();
    TestDeviceMemory memory() { return {inside_.mutex, inside_.state}; }

    const TestDeviceConfig config_;
    util::Env& env_;
    const std::string name_;
    IrqSink* irqs_ = nullptr;

    mutable TestDeviceInsides inside_;
    // Guarded by inside_.mutex.
    MigState state_ = MigState::Running;
    TestDevicePacer changes_;
    std::array<std::byte, kTestDeviceBar2Bytes> table_{};

    DmaLog log_;
    TestDeviceDma dma_;

    // The server's calls, one at a time.
    std::optional<TestDeviceSaving> saving_;
    std::optional<TestDeviceLoading> loading_;
    uint64_t sessions_ = 0;

    ClockWait arc_wait_;
    ClockWait tick_wait_;
    std::jthread ticker_;  // last: joined before the rest goes
};

TestDeviceModel::TestDeviceModel(TestDeviceConfig config, util::Env& env, std::string name,
                                 TestDeviceState state)
    : config_(std::move(config)),
      env_(env),
      name_(std::move(name)),
      inside_(std::move(state), config_),
      changes_(config_.dirty_bytes_per_s),
      dma_(inside_, log_, config_.dma_pages_per_s),
      arc_wait_(env.clock),
      tick_wait_(env.clock) {
    reset_table();
    changes_.start(env.clock.now());
}

// What is due is also done whenever somebody looks; the ticker spreads it over time, so that a stop
// need not do all of it.
Result<> TestDeviceModel::start_ticking() {
    if (config_.dirty_bytes_per_s == 0 && config_.dma_pages_per_s == 0) return {};
    const auto period = tick_period(config_);
    MIG_TRY(ticker_, util::start_thread("testdev:" + name_, [this, period](std::stop_token) {
                while (tick_wait_.until(env_.clock.now() + period)) {
                    dma_.write_due(env_.clock.now());
                    age();
                }
            }));
    return {};
}

void TestDeviceModel::stop_waiting() {
    arc_wait_.close();
    tick_wait_.close();
}

void TestDeviceModel::connect(DmaAccess& dma, IrqSink& irqs) {
    irqs_ = &irqs;
    dma_.connect(dma, env_.clock.now());
}

// ---- a PCI function

vfio::DeviceInfo TestDeviceModel::info() const {
    return {.can_reset = true,
            .is_pci = true,
            .num_regions = vfio::pci_region::kCount,
            .num_irqs = vfio::pci_irq::kCount};
}

vfio::RegionInfo TestDeviceModel::region_info(uint32_t region) const {
    return test_device_region(config_, region);
}

vfio::IrqInfo TestDeviceModel::irq_info(uint32_t index) const {
    return test_device_irq(config_, index);
}

// Plain memory, or empty.
MutBytes TestDeviceModel::memory_behind(uint32_t region, uint64_t offset, uint64_t length) {
    if (region == kTestDeviceTableBar) return MutBytes(table_).subspan(offset, length);
    if (region == vfio::pci_region::kBar0 && offset >= kRamOffset) {
        return inside_.registers.ram().subspan(offset - kRamOffset, length);
    }
    return {};
}

Result<> TestDeviceModel::region_read(uint32_t region, uint64_t offset, MutBytes out) {
    const std::lock_guard lock(inside_.mutex);
    if (region == vfio::pci_region::kConfig) {
        inside_.config_space.read(offset, out);
        return {};
    }
    if (const MutBytes memory = memory_behind(region, offset, out.size()); !memory.empty()) {
        std::ranges::copy(memory, out.begin());
        return {};
    }
    if (offset % sizeof(uint32_t) != 0 || out.size() % sizeof(uint32_t) != 0 ||
        offset + out.size() > kRamOffset) {
        return make_errno(EINVAL, "{}: register access at {:#x}, {} bytes", name_, offset,
                          out.size());
    }
    age_locked(env_.clock.now());
    for (size_t i = 0; i < out.size(); i += sizeof(uint32_t)) {
        util::store_le32(out.data() + i, inside_.registers.read(static_cast<uint32_t>(offset + i)));
    }
    return {};
}

Result<> TestDeviceModel::region_write(uint32_t region, uint64_t offset, ConstBytes in) {
    {
        const std::lock_guard lock(inside_.mutex);
        if (region == vfio::pci_region::kConfig) {
            inside_.config_space.write(offset, in);
            return {};
        }
        if (const MutBytes memory = memory_behind(region, offset, in.size()); !memory.empty()) {
            std::ranges::copy(in, memory.begin());
            return {};
        }
    }
    if (offset % sizeof(uint32_t) != 0 || in.size() % sizeof(uint32_t) != 0 ||
        offset + in.size() > kRamOffset) {
        return make_errno(EINVAL, "{}: register access at {:#x}, {} bytes", name_, offset,
                          in.size());
    }
    for (size_t i = 0; i < in.size(); i += sizeof(uint32_t)) {
        write_register(static_cast<uint32_t>(offset + i), util::load_le32(in.data() + i));
    }
    return {};
}

void TestDeviceModel::write_register(uint32_t reg, uint32_t value) {
    switch (reg) {
        case kDmaCommand:
            dma_.run_command(value & 0xff);
            if (const uint32_t vector = value >> 8; vector != 0) raise(vector - 1);
            return;
        case kIrqRaise: raise(value); return;
        case kAutoNow: dma_.write_pages(value); return;
        case kChangeNow: change_state(value); return;
        default: {
            const std::lock_guard lock(inside_.mutex);
            age_locked(env_.clock.now());
            inside_.registers.write(reg, value);
        }
    }
}

void TestDeviceModel::raise(uint32_t vector) {
    {
        const std::lock_guard lock(inside_.mutex);
        if (!works_in(state_) || vector >= config_.vectors || irqs_ == nullptr) return;
        inside_.registers.set(kIrqCount, inside_.registers.get(kIrqCount) + 1);
    }
    irqs_->raise(vfio::pci_irq::kMsix, vector);
    // Only one of the two has somebody who listens.
    if (vector == 0) irqs_->raise(vfio::pci_irq::kIntx, 0);
}

Result<> TestDeviceModel::reset() {
    dma_.quiesce(env_.clock.now());
    saving_.reset();
    loading_.reset();
    {
        const std::lock_guard lock(inside_.mutex);
        inside_.state.fill(0);
        inside_.registers.clear();
        inside_.config_space.reset();
        reset_table();
        state_ = MigState::Running;
        changes_.start(env_.clock.now());
    }
    dma_.start(env_.clock.now());
    return {};
}

// Each vector masked, as PCI wants it.
void TestDeviceModel::reset_table() {
    constexpr size_t kEntryBytes = 16, kVectorControl = 12;
    table_ = {};
    for (size_t i = 0; i < config_.vectors; ++i) {
        table_[i * kEntryBytes + kVectorControl] = std::byte{1};
    }
}

// ---- its own changes

void TestDeviceModel::age_locked(util::Nanoseconds now) {
    if (!works_in(state_)) return;
    if (const uint64_t due = changes_.take(now, sizeof(uint64_t)); due != 0) {
        inside_.registers.change(due);
    }
}

void TestDeviceModel::age() {
    const std::lock_guard lock(inside_.mutex);
    age_locked(env_.clock.now());
}

void TestDeviceModel::change_state(uint64_t bytes) {
    const std::lock_guard lock(inside_.mutex);
    if (!works_in(state_)) return;
    age_locked(env_.clock.now());
    inside_.registers.change(bytes);
}

uint64_t TestDeviceModel::state_digest() const {
    const std::lock_guard lock(inside_.mutex);
    return inside_.state.digest();
}

// ---- migration

util::Nanoseconds TestDeviceModel::latency(MigState from, MigState to) const {
    for (const auto& arc : config_.arc_latencies) {
        if (arc.from == from && arc.to == to) return arc.latency;
    }
    return config_.arc_latency;
}

DeviceModel::ArcResult TestDeviceModel::enter(MigState from, MigState to) {
    // The old state holds as long as the arc takes.
    arc_wait_.until(env_.clock.now() + latency(from, to));
    std::optional<std::vector<std::byte>> loaded;
    if (from == MigState::Resuming) {
        if (!loading_) return {make_error(ErrorKind::Internal, "{}: nothing to load", name_)};
        auto registers = loading_->finish();
        if (!registers) return {std::move(registers).error().context(name_)};
        loaded = std::move(*registers);
    }
    if (!does_dma_in(to)) dma_.quiesce(env_.clock.now());
    {
        const std::lock_guard lock(inside_.mutex);
        const auto now = env_.clock.now();
        age_locked(now);
        if (!works_in(from)) changes_.start(now);
        if (loaded) inside_.registers.load(*loaded);
        state_ = to;
    }
    if (does_dma_in(to) && !does_dma_in(from)) dma_.start(env_.clock.now());
    switch_sessions(from, to);
    return {};
}

void TestDeviceModel::switch_sessions(MigState from, MigState to) {
    using vfio::SessionKind;
    const SessionKind has = vfio::session_of(to);
    if (vfio::session_of(from) != has) {
        saving_.reset();
        loading_.reset();
        if (has == SessionKind::Saving) {
            // Nothing is read before this returns: the first pass takes all.
            const std::lock_guard lock(inside_.mutex);
            inside_.state.changed().clear_all();
            saving_.emplace(memory(), ++sessions_);
        }
        if (has == SessionKind::Resuming) {
            loading_.emplace(memory(), TestDeviceRegisters::kImageBytes);
        }
    }
    if (to == MigState::StopCopy) {
        const std::lock_guard lock(inside_.mutex);
        saving_->finish(inside_.registers.save());
    }
}

Result<size_t> TestDeviceModel::save_read(MigState state, MutBytes into) {
    if (!saving_) return make_error(ErrorKind::Internal, "{}: nothing to save", name_);
    age();
    const size_t bytes = saving_->read(into);
    if (bytes == 0 && state != MigState::StopCopy &&
        config_.nothing_for_now == TestDeviceConfig::NothingForNow::Enomsg) {
        return make_errno(ENOMSG, "{}: nothing to save for now", name_);
    }
    return bytes;
}

vfio::PrecopyInfo TestDeviceModel::precopy_info() {
    if (!saving_) return {};
    age();
    return {saving_->initial_bytes(), saving_->dirty_bytes()};
}

Result<size_t> TestDeviceModel::load_write(ConstBytes from) {
    if (!loading_) return make_error(ErrorKind::Internal, "{}: nothing to load", name_);
    MIG_CHECK(loading_->write(from), "{}", name_);
    return from.size();
}

Result<uint64_t> TestDeviceModel::stop_copy_bytes() {
    age();
    if (saving_) return saving_->remaining_bytes(TestDeviceRegisters::kImageBytes);
    return TestDeviceSaving(memory(), 0).remaining_bytes(TestDeviceRegisters::kImageBytes);
}

// ---- DMA logging

bool TestDeviceModel::dma_logging_supported() const {
    return config_.dirty_tracking != TestDeviceConfig::DirtyTracking::Off;
}

Result<> TestDeviceModel::dma_logging_start(std::span<const vfio::DmaLogRange> ranges, uint64_t) {
    return log_.start(ranges);
}

Result<> TestDeviceModel::dma_logging_report(vfio::DmaLogRange range, uint64_t page_size,
                                             util::Bitmap& out) {
    if (config_.dirty_tracking == TestDeviceConfig::DirtyTracking::FailReport) {
        return make_errno(EIO, "{}: the log is lost, as configured", name_);
    }
    dma_.write_due(env_.clock.now());
    if (config_.dirty_tracking != TestDeviceConfig::DirtyTracking::LosePage) {
        return log_.report(range, page_size, out);
    }
    util::Bitmap written(out.size());
    MIG_CHECK(log_.report(range, page_size, written));
    const uint64_t lost = written.find_set(0);
    if (lost < written.size()) written.clear(lost);
    out.or_with(written);
    return {};
}

Result<> TestDeviceModel::dma_logging_stop() {
    log_.stop();
    return {};
}

}  // namespace

Result<std::unique_ptr<TestDevice>> TestDevice::create(TestDeviceConfig config, util::Env& env,
                                                       std::string name) {
    MIG_TRY(auto state, TestDeviceState::create(config.state_bytes, config.state_file), "{}", name);
    auto device = std::make_unique<TestDeviceModel>(std::move(config), env, std::move(name),
                                                    std::move(state));
    MIG_CHECK(device->start_ticking());
    return device;
}

}  // namespace ferry::hw
