// SPDX-License-Identifier: BSD-2-Clause
// Section "ram": the source's side, and the handlers that join both sides.
#include "migration/ram.h"

#include <optional>
#include <utility>
#include <vector>

#include "migration/multifd-send.h"
#include "migration/ram-dirty.h"
#include "migration/ram-load.h"
#include "migration/ram-records.h"
#include "migration/zero-page.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

using system::kPageSize;
using system::SyncPhase;

// Pages between two looks at the clock and at max-bandwidth: 64 KiB.
constexpr uint64_t kBatchPages = 16;
constexpr uint64_t kBytesPerMib = 1024 * 1024;

// Events per second, over windows of at least kWindow.
class RateMeter {
 public:
    static constexpr util::Nanoseconds kWindow = std::chrono::milliseconds(100);

    explicit RateMeter(std::atomic<uint64_t>& shown) : shown_(shown) {}
    void begin(util::Nanoseconds now) {
        begin_ = now;
        events_ = 0;
        shown_ = 0;
    }
    void count(uint64_t events, util::Nanoseconds now) {
        events_ += events;
        const util::Nanoseconds passed = now - begin_;
        if (passed < kWindow) return;
        const double seconds = std::chrono::duration<double>(passed).count();
        shown_ = static_cast<uint64_t>(static_cast<double>(events_) / seconds);
        begin_ = now;
        events_ = 0;
    }

 private:
    std::atomic<uint64_t>& shown_;
    util::Nanoseconds begin_{};
    uint64_t events_ = 0;
};

class RamHandlers final : public SaveVMHandlers {
 public:
    RamHandlers(system::GuestMemory& memory, util::Env& env, RamStats& stats,
                std::function<void(uint64_t)> pass)
        : memory_(memory),
          env_(env),
          stats_(stats),
          pass_(std::move(pass)),
          dirty_rate_(stats.dirty_pages_per_second),
          send_rate_(stats.pages_per_second),
          loader_(memory, env.trace) {}

    const SectionId& section() const override { return section_; }

    Result<> save_prepare(SaveSession& session) override;
    Result<> save_setup(SaveSession& session, SaveStream& out) override;
    uint64_t state_pending_estimate() override;
    Result<uint64_t> state_pending_exact() override;
    bool is_active_iterate() override { return true; }
    Result<IterateStatus> save_live_iterate(SaveStream& out) override;
    Result<> save_live_complete_precopy(SaveStream& out) override;
    Sections sections() const override { return Sections::Live; }
    Result<> save_state(SaveStream& out) override;
    void save_cleanup(Outcome outcome) noexcept override;

    Result<> load_setup(LoadSession& session) override;
    bool switchover_ack_needed() const override { return false; }
    Result<> load_state(LoadStream& in, SectionKind kind, uint32_t version) override;
    Result<> switchover_start() override { return {}; }
    void load_validate(system::Done done) override { done(loader_.validate()); }
    void load_cleanup(Outcome outcome) noexcept override;

 private:
    Result<> start_trackers();
    void stop_trackers() noexcept;
    void reset_stats();
    void sync(SyncPhase phase);
    void warn_of_untracked();
    void put_block_list(SaveStream& out);
    void put_page(SaveStream& out, const system::RamBlock& block, uint64_t offset);
    Result<> put_run(SaveStream& out, const RamDirtyMap::Page& run);
    // Pages that are sent from here on replace those before, on whichever channel.
    Result<> put_barrier(SaveStream& out);
    Result<> put_end(SaveStream& out);
    uint64_t bytes_sent(const SaveStream& out) const;
    void count_pages();
    // At most kBatchPages; false when nothing was dirty.
    Result<bool> send_batch(SaveStream& out);

    system::GuestMemory& memory_;
    util::Env& env_;
    RamStats& stats_;
    std::function<void(uint64_t)> pass_;
    const SectionId section_{"ram", 0, kRamVersion};

    // One outgoing attempt's.
    SaveSession* session_ = nullptr;
    std::optional<RamDirtyMap> map_;
    util::Registration log_use_;
    std::vector<system::DirtyTracker*> started_;
    const system::RamBlock* named_block_ = nullptr;  // the last record's
    uint64_t zero_pages_ = 0;
    uint64_t normal_pages_ = 0;
    // With page channels: pages have gone out since the last barrier: all of them before the last
    // sync, or some after it.
    enum class Unfenced : uint8_t { Nothing, Pages, OldPages } unfenced_ = Unfenced::Nothing;
    ZeroPageDetection detection_ = ZeroPageDetection::Multifd;
    RateMeter dirty_rate_;
    RateMeter send_rate_;
    enum class UntrackedWarning : uint8_t { Due, Given } warning_ = UntrackedWarning::Due;

    RamLoader loader_;
};

// --- Source: setup and the end

Result<> RamHandlers::save_prepare(SaveSession& session) {
    session_ = &session;
    return {};
}

Result<> RamHandlers::start_trackers() {
    log_use_ = memory_.dirty_log_use().take();
    started_.reserve(memory_.trackers().size());
    for (system::DirtyTracker* tracker : memory_.trackers()) {
        started_.push_back(tracker);  // one that fails to start wants to be stopped too
        if (auto started = tracker->dirty_log_start(); !started) {
            stop_trackers();
            return std::move(started).error().context(
                fmt::format("{}: starting to track dirty pages", tracker->name()));
        }
    }
    return {};
}

void RamHandlers::stop_trackers() noexcept {
    while (!started_.empty()) {
        started_.back()->dirty_log_stop();
        started_.pop_back();
    }
    log_use_.reset();
}

void RamHandlers::reset_stats() {
    uint64_t total = 0;
    for (const auto& block : memory_.blocks()) total += block->size();
    stats_.total_bytes = total;
    stats_.remaining_bytes = total;
    stats_.zero_pages = zero_pages_ = 0;
    stats_.normal_pages = normal_pages_ = 0;
    stats_.dirty_sync_count = 0;
    stats_.dirtied_pages = 0;
    stats_.untracked_bytes = 0;
    dirty_rate_.begin(env_.clock.now());
    send_rate_.begin(env_.clock.now());
}

void RamHandlers::put_block_list(SaveStream& out) {
    out.be64(stats_.total_bytes | kRamMemSize);
    for (const auto& block : memory_.blocks()) {
        out.str8(block->name());
        out.be64(block->size());
    }
}

Result<> RamHandlers::save_setup(SaveSession& session, SaveStream& out) {
    session_ = &session;
    named_block_ = nullptr;
    warning_ = UntrackedWarning::Due;
    unfenced_ = Unfenced::Nothing;
    detection_ = static_cast<ZeroPageDetection>(session.parameters().zero_page_detection);
    reset_stats();
    map_.emplace(memory_);
    // Before the first look: what is written from here on is in somebody's log.
    MIG_CHECK(start_trackers());
    sync(SyncPhase::Precopy);
    put_block_list(out);
    trace::ram_save_begin(env_.trace, memory_.blocks().size(), stats_.total_bytes);
    return put_end(out);
}

void RamHandlers::save_cleanup(Outcome) noexcept {
    stop_trackers();
    map_.reset();
    session_ = nullptr;
}

// --- Source: which pages

void RamHandlers::sync(SyncPhase phase) {
    const uint64_t found = map_->sync(phase);
    if (unfenced_ == Unfenced::Pages) unfenced_ = Unfenced::OldPages;
    stats_.dirtied_pages += found;
    const uint64_t count = ++stats_.dirty_sync_count;
    stats_.untracked_bytes = map_->untracked_pages() * kPageSize;
    stats_.remaining_bytes = map_->pending_pages() * kPageSize;
    dirty_rate_.count(found, env_.clock.now());
    warn_of_untracked();
    trace::ram_dirty_sync(env_.trace, count, found, map_->pending_pages());
    if (pass_) pass_(count);
}

void RamHandlers::warn_of_untracked() {
    if (map_->untracked_pages() == 0 || warning_ == UntrackedWarning::Given) return;
    warning_ = UntrackedWarning::Given;
    env_.log.log(
        util::LogLevel::Warning,
        fmt::format("migration: nobody can tell which pages of {} MiB of RAM devices write "
                    "to; they are sent again while the VM is paused",
                    (stats_.untracked_bytes + kBytesPerMib - 1) / kBytesPerMib));
}

uint64_t RamHandlers::state_pending_estimate() {
    return map_->pending_pages() * kPageSize;
}

Result<uint64_t> RamHandlers::state_pending_exact() {
    sync(SyncPhase::Precopy);
    return state_pending_estimate();
}

// --- Source: sending them

void RamHandlers::put_page(SaveStream& out, const system::RamBlock& block, uint64_t offset) {
    const ConstBytes page = block.host().subspan(offset, kPageSize);
    const bool is_zero = detection_ != ZeroPageDetection::None && is_zero_page(page);
    const bool same_block = named_block_ == &block;
    out.be64(offset | (is_zero ? kRamZero : kRamPage) | (same_block ? kRamContinue : 0));
    if (!same_block) {
        out.str8(block.name());
        named_block_ = &block;
    }
    if (is_zero) {
        out.u8(0);
        ++zero_pages_;
    } else {
        // Not copied. If the guest writes before it is sent, the page is dirty again and goes
        // again.
        out.bytes_ref(page);
        ++normal_pages_;
    }
}

Result<> RamHandlers::put_run(SaveStream& out, const RamDirtyMap::Page& run) {
    MultifdSender* const pages = session_->multifd();
    const uint64_t begin = run.first * kPageSize;
    if (pages != nullptr && detection_ != ZeroPageDetection::Legacy) {
        unfenced_ = Unfenced::Pages;
        return pages->add(*run.block, begin, run.count);
    }
    // Of these, too, none may be overtaken by its successor, on whichever channel.
    if (pages != nullptr) unfenced_ = Unfenced::Pages;
    for (uint64_t i = 0; i < run.count; ++i) {
        const uint64_t offset = begin + i * kPageSize;
        if (pages == nullptr || is_zero_page(run.block->host().subspan(offset, kPageSize))) {
            put_page(out, *run.block, offset);
        } else {
            MIG_CHECK(pages->add(*run.block, offset, 1));
        }
    }
    return {};
}

Result<> RamHandlers::put_barrier(SaveStream& out) {
    MIG_CHECK(session_->multifd()->sync());
    unfenced_ = Unfenced::Nothing;
    if (session_->stream_options().multifd_barrier == StreamOptions::Barrier::PerSection) return {};
    out.be64(kRamMultifdFlush);
    // The page channels stand still over there until it has come.
    return out.flush();
}

void RamHandlers::count_pages() {
    const MultifdSender* const pages = session_->multifd();
    const auto elsewhere = pages != nullptr ? pages->sent() : MultifdSender::Sent{};
    stats_.zero_pages = zero_pages_ + elsewhere.zero_pages;
    stats_.normal_pages = normal_pages_ + elsewhere.normal_pages;
}

uint64_t RamHandlers::bytes_sent(const SaveStream& out) const {
    const MultifdSender* const pages = session_->multifd();
    return out.position() + (pages != nullptr ? pages->sent().bytes : 0);
}

Result<> RamHandlers::put_end(SaveStream& out) {
    const bool each_section =
        session_->stream_options().multifd_barrier == StreamOptions::Barrier::PerSection;
    if (session_->multifd() != nullptr && each_section) MIG_CHECK(put_barrier(out));
    out.be64(kRamEos);
    return {};
}

Result<bool> RamHandlers::send_batch(SaveStream& out) {
    if (unfenced_ == Unfenced::OldPages) MIG_CHECK(put_barrier(out));
    uint64_t sent = 0;
    while (sent < kBatchPages) {
        const RamDirtyMap::Page run = map_->take(kBatchPages - sent);
        if (run.count == 0) break;
        MIG_CHECK(put_run(out, run));
        sent += run.count;
    }
    count_pages();
    stats_.remaining_bytes = map_->pending_pages() * kPageSize;
    send_rate_.count(sent, env_.clock.now());
    MIG_CHECK(out.status());  // no use in reading on for a peer that is gone
    return sent != 0;
}

Result<IterateStatus> RamHandlers::save_live_iterate(SaveStream& out) {
    do {
        MIG_TRY(const bool more, send_batch(out));
        if (!more) break;
    } while (map_->dirty_pages() != 0 && !session_->round_is_full());
    MIG_CHECK(put_end(out));
    return map_->dirty_pages() == 0 ? IterateStatus::Done : IterateStatus::More;
}

Result<> RamHandlers::save_live_complete_precopy(SaveStream& out) {
    {
        const util::ScopedSpan span(env_.timeline, "ram", "dirty-sync");
        sync(SyncPhase::Final);
    }
    util::ScopedSpan span(env_.timeline, "ram", "save");
    const uint64_t begin = bytes_sent(out);
    map_->add_untracked();
    while (map_->dirty_pages() != 0) {
        MIG_CHECK(send_batch(out));
    }
    const bool each_section =
        session_->stream_options().multifd_barrier == StreamOptions::Barrier::PerSection;
    if (unfenced_ != Unfenced::Nothing && !each_section) MIG_CHECK(put_barrier(out));
    MIG_CHECK(put_end(out));
    count_pages();  // the page channels had some left
    span.add_bytes(bytes_sent(out) - begin);
    return {};
}

Result<> RamHandlers::save_state(SaveStream&) {
    return make_error(ErrorKind::Internal, "RAM has no one-shot state");
}

// --- Destination

Result<> RamHandlers::load_setup(LoadSession& session) {
    loader_.begin(session.multifd(), session.stream_options().multifd_barrier);
    return {};
}

Result<> RamHandlers::load_state(LoadStream& in, SectionKind kind, uint32_t version) {
    return loader_.load_body(in, kind, version);
}

void RamHandlers::load_cleanup(Outcome) noexcept {
    loader_.end();
}

}  // namespace

std::unique_ptr<SaveVMHandlers> make_ram_handlers(system::GuestMemory& memory, util::Env& env,
                                                  RamStats& stats,
                                                  std::function<void(uint64_t)> pass) {
    return std::make_unique<RamHandlers>(memory, env, stats, std::move(pass));
}

}  // namespace ferry::migration
