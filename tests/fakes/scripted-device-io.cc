// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/scripted-device-io.h"

#include <algorithm>
#include <cerrno>

#include "util/try.h"

namespace ferry::test {

using vfio::DmaLogRange;
using vfio::MigDataStream;
using vfio::MigState;
using vfio::SessionKind;

namespace {
constexpr uint64_t kPage = 4096;
}

std::vector<std::byte> content_of(std::string_view text) {
    const ConstBytes bytes = bytes_of(text);
    return {bytes.begin(), bytes.end()};
}

void CallLog::add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
}

std::vector<std::string> CallLog::lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
}

std::vector<std::string> CallLog::changes() const {
    std::vector<std::string> changes = lines();
    std::erase_if(changes, [](const std::string& line) {
        return line.find(": set ") == std::string::npos && !line.ends_with(": reset");
    });
    return changes;
}

void CallLog::clear() {
    const std::lock_guard lock(mutex_);
    lines_.clear();
}

struct ScriptedDeviceIo::Core {
    struct ArcFault {
        MigState from, to;
        int errnum;
        After after;
    };
    struct CallFault {
        int errnum;
        int countdown;  // 0: every call
    };

    Core(std::string its_name, vfio::MigCaps its_caps, CallLog& its_log)
        : name(std::move(its_name)), caps(its_caps), log(its_log) {}

    // With the lock held: notes the call, and fails it if so scripted.
    Result<> enter_call(const std::string& call) {
        log.add(name + ": " + call);
        const auto fault = call_faults.find(call);
        if (fault == call_faults.end()) return {};
        const int errnum = fault->second.errnum;
        if (fault->second.countdown > 0) {
            if (--fault->second.countdown > 0) return {};
            call_faults.erase(fault);
        }
        return make_errno(errnum, "{}({})", call, name);
    }

    // With the lock held: what entering a state does to the data session.
    bool enter_state(MigState to) {
        const SessionKind before = session_of(state);
        const SessionKind kind = session_of(to);
        if (state == MigState::Resuming && to == MigState::Stop) content = std::move(received);
        state = to;
        if (kind == before) return false;
        ++session;  // whatever was open is over
        position = 0;
        received.clear();
        saved = content;
        return kind != SessionKind::None;
    }

    const std::string name;
    const vfio::MigCaps caps;
    CallLog& log;

    std::mutex mutex;
    std::condition_variable changed;
    MigState state = MigState::Running;
    std::vector<std::byte> content;
    size_t pre_copy = 0;
    size_t initial = 0;
    std::vector<std::byte> saved;     // the saving session's image
    size_t position = 0;              // read so far
    std::vector<std::byte> received;  // the resuming session's
    uint64_t session = 0;
    int streams = 0;
    std::vector<ArcFault> arc_faults;
    std::map<std::string, CallFault> call_faults;
    std::optional<MigState> extra_stream;
    std::optional<MigState> held_state;
    bool held = false;
    size_t transfer_limit = SIZE_MAX;
    std::optional<uint64_t> size;
    bool log_supported = true;
    size_t max_log_ranges = SIZE_MAX;
    std::vector<DmaLogRange> ranges;
    std::set<uint64_t> dirty;  // page numbers
};

class ScriptedDeviceIo::Stream final : public MigDataStream {
 public:
    // With the core's lock held.
    explicit Stream(std::shared_ptr<Core> core) : core_(std::move(core)), session_(core_->session) {
        ++core_->streams;
    }
    ~Stream() override {
        const std::lock_guard lock(core_->mutex);
        --core_->streams;
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    Result<Read> read_some(MutBytes into) override {
        const std::lock_guard lock(core_->mutex);
        MIG_CHECK(core_->enter_call("read"));
        MIG_CHECK(check_open(SessionKind::Saving));
        const size_t end =
            core_->state == MigState::StopCopy ? core_->saved.size() : core_->pre_copy;
        const size_t count =
            std::min({into.size(), core_->transfer_limit, end - std::min(end, core_->position)});
        std::copy_n(core_->saved.begin() + static_cast<ptrdiff_t>(core_->position), count,
                    into.begin());
        core_->position += count;
        return Read{count};
    }

    Result<size_t> write_some(ConstBytes from) override {
        const std::lock_guard lock(core_->mutex);
        MIG_CHECK(core_->enter_call("write"));
        MIG_CHECK(check_open(SessionKind::Resuming));
        const size_t count = std::min(from.size(), core_->transfer_limit);
        core_->received.insert(core_->received.end(), from.begin(),
                               from.begin() + static_cast<ptrdiff_t>(count));
        return count;
    }

    Result<vfio::PrecopyInfo> precopy_info() override {
        const std::lock_guard lock(core_->mutex);
        MIG_CHECK(core_->enter_call("precopy info"));
        MIG_CHECK(check_open(SessionKind::Saving));
        if (core_->state == MigState::StopCopy) return make_errno(EINVAL, "precopy info");
        const auto left = [this](size_t from, size_t to) {
            return to - std::clamp(core_->position, from, to);
        };
        return vfio::PrecopyInfo{.initial_bytes = left(0, core_->initial),
                                 .dirty_bytes = left(core_->initial, core_->pre_copy)};
    }

 private:
    Result<> check_open(SessionKind kind) const {
        if (session_ == core_->session && session_of(core_->state) == kind) return {};
        return make_errno(ENODEV, "data stream of {}", core_->name);
    }

    std::shared_ptr<Core> core_;
    uint64_t session_;
};

ScriptedDeviceIo::ScriptedDeviceIo(std::string name, vfio::MigCaps caps, CallLog& log)
    : core_(std::make_shared<Core>(std::move(name), caps, log)) {}
ScriptedDeviceIo::~ScriptedDeviceIo() = default;

void ScriptedDeviceIo::set_content(std::vector<std::byte> content, size_t pre_copy,
                                   size_t initial) {
    const std::lock_guard lock(core_->mutex);
    core_->content = std::move(content);
    core_->pre_copy = std::min(pre_copy, core_->content.size());
    core_->initial = std::min(initial, core_->pre_copy);
}

std::vector<std::byte> ScriptedDeviceIo::content() const {
    const std::lock_guard lock(core_->mutex);
    return core_->content;
}

void ScriptedDeviceIo::fail_arc(MigState from, MigState to, int errnum, After after) {
    const std::lock_guard lock(core_->mutex);
    core_->arc_faults.push_back({from, to, errnum, after});
}

void ScriptedDeviceIo::fail_call(const std::string& call, int errnum, int nth) {
    const std::lock_guard lock(core_->mutex);
    core_->call_faults[call] = {errnum, nth};
}

void ScriptedDeviceIo::fail_calls(const std::string& call, int errnum) {
    fail_call(call, errnum, 0);
}

void ScriptedDeviceIo::mend_calls(const std::string& call) {
    const std::lock_guard lock(core_->mutex);
    core_->call_faults.erase(call);
}

void ScriptedDeviceIo::add_stream_at(MigState next) {
    const std::lock_guard lock(core_->mutex);
    core_->extra_stream = next;
}

void ScriptedDeviceIo::set_transfer_limit(size_t bytes) {
    const std::lock_guard lock(core_->mutex);
    core_->transfer_limit = bytes;
}

void ScriptedDeviceIo::set_stop_copy_bytes(uint64_t bytes) {
    const std::lock_guard lock(core_->mutex);
    core_->size = bytes;
}

void ScriptedDeviceIo::set_dma_logging(bool supported) {
    const std::lock_guard lock(core_->mutex);
    core_->log_supported = supported;
}

void ScriptedDeviceIo::hold_arc(MigState state) {
    const std::lock_guard lock(core_->mutex);
    core_->held_state = state;
}

void ScriptedDeviceIo::wait_until_held() {
    std::unique_lock lock(core_->mutex);
    core_->changed.wait(lock, [this] { return core_->held; });
}

void ScriptedDeviceIo::release_arcs() {
    const std::lock_guard lock(core_->mutex);
    core_->held_state.reset();
    core_->held = false;
    core_->changed.notify_all();
}

void ScriptedDeviceIo::dma(uint64_t iova, uint64_t length) {
    const std::lock_guard lock(core_->mutex);
    for (const DmaLogRange& range : core_->ranges) {
        for (uint64_t page = iova / kPage; page <= (iova + length - 1) / kPage; ++page) {
            if (page * kPage >= range.iova && page * kPage - range.iova < range.length) {
                core_->dirty.insert(page);
            }
        }
    }
}

MigState ScriptedDeviceIo::state() const {
    const std::lock_guard lock(core_->mutex);
    return core_->state;
}

int ScriptedDeviceIo::open_streams() const {
    const std::lock_guard lock(core_->mutex);
    return core_->streams;
}

std::vector<DmaLogRange> ScriptedDeviceIo::logged_ranges() const {
    const std::lock_guard lock(core_->mutex);
    return core_->ranges;
}

Result<vfio::MigCaps> ScriptedDeviceIo::migration_caps() {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("caps"));
    return core_->caps;
}

Result<MigState> ScriptedDeviceIo::mig_state() {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("get state"));
    return core_->state;
}

Result<std::unique_ptr<MigDataStream>> ScriptedDeviceIo::set_mig_state(MigState next) {
    Core& core = *core_;
    std::unique_lock lock(core.mutex);
    MIG_CHECK(core.enter_call("set " + std::string(to_string(next))));
    MIG_TRY(const auto path, mig_path(core.caps, core.state, next));
    bool opened = false;
    for (const MigState step : path) {
        if (core.held_state == step) {
            core.held = true;
            core.changed.notify_all();
            core.changed.wait(lock, [&core] { return !core.held; });
        }
        const MigState from = core.state;
        const auto fault = std::ranges::find_if(core.arc_faults, [&](const Core::ArcFault& each) {
            return each.from == from && each.to == step;
        });
        if (fault != core.arc_faults.end()) {
            const Core::ArcFault met = *fault;
            core.arc_faults.erase(fault);
            if (met.after == After::Lost) core.enter_state(MigState::Error);
            if (met.after == After::HappensAnyway) core.enter_state(step);
            return make_errno(met.errnum, "set state({})", core.name);
        }
        opened = core.enter_state(step);
    }
    if (core.extra_stream == next) {
        core.extra_stream.reset();
        opened = true;
    }
    if (!opened) return std::unique_ptr<MigDataStream>();
    return std::unique_ptr<MigDataStream>(new Stream(core_));
}

Result<> ScriptedDeviceIo::reset() {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("reset"));
    core_->enter_state(MigState::Running);
    return {};
}

Result<uint64_t> ScriptedDeviceIo::stop_copy_bytes() {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("size"));
    return core_->size.value_or(core_->content.size());
}

Result<bool> ScriptedDeviceIo::dma_logging_supported() {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("log supported"));
    return core_->log_supported;
}

Result<> ScriptedDeviceIo::dma_logging_start(std::span<const DmaLogRange> ranges,
                                             uint64_t page_size) {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("log start"));
    for (const DmaLogRange& range : ranges) {
        if (range.iova % page_size != 0 || range.length % page_size != 0 || range.length == 0) {
            return make_errno(EINVAL, "log start({}): unaligned", core_->name);
        }
    }
    if (ranges.empty() || !core_->ranges.empty()) {
        return make_errno(EINVAL, "log start({})", core_->name);
    }
    if (ranges.size() > core_->max_log_ranges) {
        return make_errno(E2BIG, "log start({})", core_->name);
    }
    core_->ranges.assign(ranges.begin(), ranges.end());
    return {};
}

Result<> ScriptedDeviceIo::dma_logging_report(DmaLogRange range, uint64_t page_size,
                                              util::Bitmap& out) {
    const std::lock_guard lock(core_->mutex);
    MIG_CHECK(core_->enter_call("log report"));
    if (core_->ranges.empty()) return make_errno(EINVAL, "log report({})", core_->name);
    std::erase_if(core_->dirty, [&](uint64_t page) {
        const uint64_t iova = page * kPage;
        if (iova < range.iova || iova - range.iova >= range.length) return false;
        out.set((iova - range.iova) / page_size);
        return true;
    });
    return {};
}

void ScriptedDeviceIo::set_max_log_ranges(size_t count) {
    const std::lock_guard lock(core_->mutex);
    core_->max_log_ranges = count;
}

Result<> ScriptedDeviceIo::dma_logging_stop() {
    const std::lock_guard lock(core_->mutex);
    core_->ranges.clear();
    core_->dirty.clear();
    return core_->enter_call("log stop");
}

// --- no regions, no interrupts

namespace {
Error absent() {
    return make_errno(EINVAL, "the scripted device has none");
}
}  // namespace

Result<vfio::DeviceInfo> ScriptedDeviceIo::info() {
    return vfio::DeviceInfo{.can_reset = true};
}
Result<vfio::RegionInfo> ScriptedDeviceIo::region_info(uint32_t) {
    return absent();
}
Result<vfio::IrqInfo> ScriptedDeviceIo::irq_info(uint32_t) {
    return absent();
}
Result<> ScriptedDeviceIo::set_irq_eventfds(uint32_t, uint32_t, std::span<const BorrowedFd>) {
    return absent();
}
Result<> ScriptedDeviceIo::disable_irqs(uint32_t) {
    return absent();
}
Result<> ScriptedDeviceIo::set_irq_masked(uint32_t, uint32_t, bool) {
    return absent();
}
Result<> ScriptedDeviceIo::region_read(uint32_t, uint64_t, MutBytes) {
    return absent();
}
Result<> ScriptedDeviceIo::region_write(uint32_t, uint64_t, ConstBytes) {
    return absent();
}
Result<util::MappedRegion> ScriptedDeviceIo::region_map(uint32_t, uint64_t, uint64_t) {
    return absent();
}

}  // namespace ferry::test
