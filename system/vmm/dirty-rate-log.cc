// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>
#include <mutex>
#include <utility>

#include "system/vmm/dirty-rate-probe.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using system::Gpa;

// Enters what a tracker reports into the blocks' own logs. What nobody can tell counts as dirty.
class IntoBlocks final : public system::DirtySink {
 public:
    explicit IntoBlocks(system::GuestMemory& memory) : memory_(memory) {}

    void mark_dirty(Gpa first, uint64_t length) override {
        while (length > 0) {
            const auto piece = memory_.lookup(first, length);
            const uint64_t done = piece.bytes.empty() ? system::kPageSize : piece.bytes.size();
            if (!piece.bytes.empty()) piece.block->mark_dirty(piece.offset, done);
            first += done;
            length -= std::min(done, length);
        }
    }
    void mark_dirty_pages(Gpa first, uint64_t page_size, const util::Bitmap& pages) override {
        for (uint64_t at = pages.find_set(0); at < pages.size();) {
            const uint64_t end = pages.find_clear(at);
            mark_dirty(first + at * page_size, (end - at) * page_size);
            at = pages.find_set(end);
        }
    }
    void mark_untracked(Gpa first, uint64_t length) override { mark_dirty(first, length); }

 private:
    system::GuestMemory& memory_;
};

class LogProbe final : public DirtyRateProbe {
 public:
    LogProbe(const util::Clock& clock, system::GuestMemory& memory, system::DirtyTracker* cpus)
        : clock_(clock), memory_(memory), cpus_(cpus) {}
    ~LogProbe() override {
        end();
        use_.reset();
    }
    LogProbe(const LogProbe&) = delete;
    LogProbe& operator=(const LogProbe&) = delete;

    Result<> claim() {
        auto use = memory_.dirty_log_use().observe([this] { end(); });
        if (!use) {
            return make_error(ErrorKind::InvalidState,
                              "a migration uses the dirty log; use page-sampling");
        }
        use_ = std::move(*use);
        return {};
    }

    Result<> begin() override {
        const std::lock_guard lock(mutex_);
        if (stage_ != Stage::Waiting) {
            return make_error(ErrorKind::InvalidState, "a migration has begun meanwhile");
        }
        if (cpus_ != nullptr) {
            if (auto started = cpus_->dirty_log_start(); !started) {
                cpus_->dirty_log_stop();
                stage_ = Stage::Over;
                return std::move(started).error().context(std::string(cpus_->name()));
            }
        }
        stage_ = Stage::Looking;
        count();  // what was written before
        began_ = clock_.now();
        return {};
    }
    Found finish() override {
        end();
        use_.reset();
        const std::lock_guard lock(mutex_);
        return found_;
    }

 private:
    enum class Stage : uint8_t { Waiting, Looking, Over };

    // Any thread: a migration's, too.
    void end() {
        const std::lock_guard lock(mutex_);
        const Stage before = std::exchange(stage_, Stage::Over);
        if (before != Stage::Looking) return;
        found_ = {count() * system::kPageSize, clock_.now() - began_};
        if (cpus_ != nullptr) cpus_->dirty_log_stop();
    }
    // Pages since the last call.
    uint64_t count() {
        if (cpus_ != nullptr) {
            IntoBlocks sink(memory_);
            cpus_->dirty_log_sync(system::SyncPhase::Precopy, sink);
        }
        uint64_t pages = 0;
        for (const auto& block : memory_.blocks()) {
            util::Bitmap dirty(block->pages());
            block->dirty_log().collect_into(dirty);
            pages += dirty.count();
        }
        return pages;
    }

    const util::Clock& clock_;
    system::GuestMemory& memory_;
    system::DirtyTracker* const cpus_;
    util::Registration use_;
    std::mutex mutex_;  // all below, and the log meanwhile
    Stage stage_ = Stage::Waiting;
    util::Nanoseconds began_{};
    Found found_;
};

}  // namespace

Result<std::unique_ptr<DirtyRateProbe>> make_log_probe(const util::Clock& clock,
                                                       system::GuestMemory& memory,
                                                       system::DirtyTracker* cpus) {
    auto probe = std::make_unique<LogProbe>(clock, memory, cpus);
    MIG_CHECK(probe->claim());
    return std::unique_ptr<DirtyRateProbe>(std::move(probe));
}

}  // namespace ferry::vmm
