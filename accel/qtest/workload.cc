// SPDX-License-Identifier: BSD-2-Clause
#include "accel/qtest/workload.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "trace-points.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::qtest {

namespace {
using system::kPageSize;
using util::Nanoseconds;

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;
// Pages between two looks at whether to pause: bounds how long a pause has to wait.
constexpr uint64_t kBatchPages = 64;
// Time that could not be used (the machine was busy) is forgotten beyond this much, so that a delay
// is not followed by a burst.
constexpr Nanoseconds kMaxArrears = std::chrono::milliseconds(100);
// Wake-ups are not finer than this, whatever the rate.
constexpr Nanoseconds kMinWait = std::chrono::milliseconds(1);
}  // namespace

Workload::Workload(std::string id, system::GuestMemory& memory, util::Env& env)
    : id_(std::move(id)), memory_(memory), env_(env) {}

Result<std::unique_ptr<Workload>> Workload::create(std::string id, WorkloadState state,
                                                   system::GuestMemory& memory, util::Env& env) {
    std::unique_ptr<Workload> workload(new Workload(std::move(id), memory, env));
    MIG_CHECK(workload->restore(state));
    MIG_TRY(workload->thread_,
            util::start_thread(
                "workload/" + workload->id_,
                [self = workload.get()](const std::stop_token&) { self->thread_main(); }),
            "workload '{}'", workload->id_);
    return workload;
}

Workload::~Workload() {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::End;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<> Workload::check(const WorkloadState& state) const {
    if (state.pages_per_second == 0 || state.pages_per_second > kMaxPagesPerSecond) {
        return make_error(ErrorKind::InvalidArgument,
                          "workload '{}': pages-per-second must be 1 to {}", id_,
                          kMaxPagesPerSecond);
    }
    if (state.working_set == 0 || state.working_set % kPageSize != 0 ||
        state.offset % kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "workload '{}': working-set and offset must be multiples of {}, and "
                          "working-set positive",
                          id_, kPageSize);
    }
    if (state.order != Order::Sequential && state.order != Order::Random) {
        return make_error(ErrorKind::InvalidArgument, "workload '{}': unknown order", id_);
    }
    if (state.fill != Fill::Page && state.fill != Fill::Record) {
        return make_error(ErrorKind::InvalidArgument, "workload '{}': unknown fill", id_);
    }
    uint64_t covered = 0;
    while (covered < state.working_set) {
        const uint64_t rest = state.working_set - covered;
        const auto piece = memory_.lookup(state.offset + covered, rest);
        if (piece.bytes.empty()) {
            return make_error(ErrorKind::InvalidArgument,
                              "workload '{}': its working set, {} bytes at {:#x}, is not all RAM",
                              id_, state.working_set, state.offset);
        }
        covered += piece.bytes.size();
    }
    return {};
}

WorkloadState Workload::state() const {
    const std::lock_guard lock(mutex_);
    WorkloadState state = config_;
    state.position = position_.load(std::memory_order_relaxed);
    return state;
}

Result<> Workload::restore(const WorkloadState& state) {
    MIG_CHECK(check(state));
    const std::lock_guard lock(mutex_);
    if (!parked_) {
        return make_error(ErrorKind::InvalidState, "workload '{}' is running", id_);
    }
    config_ = state;
    position_.store(state.position, std::memory_order_relaxed);
    return {};
}

Result<> Workload::set_pages_per_second(uint64_t rate) {
    WorkloadState wanted = state();
    wanted.pages_per_second = rate;
    MIG_CHECK(check(wanted));
    {
        const std::lock_guard lock(mutex_);
        config_.pages_per_second = rate;
    }
    wake_.notify_all();
    return {};
}

void Workload::set_throttle(unsigned percent) {
    {
        const std::lock_guard lock(mutex_);
        throttle_percent_ = percent;
    }
    wake_.notify_all();
}

void Workload::pause(std::function<void()> parked) {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::Pause;
        if (!parked_) {
            parked_calls_.push_back(std::move(parked));
            wake_.notify_all();
            return;
        }
    }
    parked();
}

void Workload::resume() {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::Run;
        parked_ = false;
    }
    wake_.notify_all();
}

void Workload::thread_main() {
    std::unique_lock lock(mutex_);
    for (;;) {
        if (wanted_ == Wanted::End) return;
        if (wanted_ == Wanted::Run) {
            trace::workload_run(env_.trace, id_, position_);
            run_until_paused(lock);
            trace::workload_parked(env_.trace, id_, position_);
            continue;
        }
        parked_ = true;
        std::vector<std::function<void()>> calls;
        calls.swap(parked_calls_);
        if (!calls.empty()) {
            lock.unlock();
            for (const auto& call : calls) call();
            lock.lock();
            continue;
        }
        // A pause may follow a resume before this thread has seen that one.
        wake_.wait(lock, [this] { return wanted_ != Wanted::Pause || !parked_; });
    }
}

void Workload::run_until_paused(std::unique_lock<std::mutex>& lock) {
    Nanoseconds last = env_.clock.now();
    uint64_t credit = 0;  // pages * kNanosecondsPerSecond
    while (wanted_ == Wanted::Run) {
        // Never 0: a page may take its time, but it comes.
        const uint64_t rate =
            std::max<uint64_t>(config_.pages_per_second * (100 - throttle_percent_) / 100, 1);
        const Nanoseconds now = env_.clock.now();
        const auto elapsed = static_cast<uint64_t>(std::min(now - last, kMaxArrears).count());
        last = now;
        credit += elapsed * rate;
        uint64_t due = credit / kNanosecondsPerSecond;
        credit %= kNanosecondsPerSecond;
        if (due == 0) {
            const Nanoseconds next((kNanosecondsPerSecond - credit + rate - 1) / rate);
            env_.clock.wait_until(wake_, lock, now + std::max(next, kMinWait));
            continue;
        }
        lock.unlock();
        while (due > 0 && wanted_.load(std::memory_order_relaxed) == Wanted::Run) {
            const uint64_t batch = std::min(due, kBatchPages);
            write_pages(batch);
            due -= batch;
        }
        lock.lock();
    }
}

void Workload::write_pages(uint64_t count) {
    std::array<std::byte, kPageSize> content;
    const MutBytes record =
        config_.fill == Fill::Page ? MutBytes(content) : MutBytes(content).first(kRecordSize);
    const uint64_t pages = config_.working_set / kPageSize;
    uint64_t sequence = position_.load(std::memory_order_relaxed);
    for (; count > 0; --count) {
        ++sequence;
        const uint64_t page = page_of(config_.order, config_.seed, sequence, pages);
        fill_page(record, config_.seed, sequence, page);
        const auto piece = memory_.lookup(config_.offset + page * kPageSize, record.size());
        std::memcpy(piece.bytes.data(), record.data(), record.size());
        piece.block->mark_dirty(piece.offset, record.size());
    }
    position_.store(sequence, std::memory_order_relaxed);
}

void WorkloadVcpus::pause(system::Done done) {
    if (workloads_.empty()) return done({});
    struct Outstanding {
        std::atomic<size_t> count;
        system::Done done;
    };
    auto outstanding = std::make_shared<Outstanding>(workloads_.size(), std::move(done));
    for (Workload* workload : workloads_) {
        workload->pause([outstanding] {
            if (outstanding->count.fetch_sub(1) == 1) outstanding->done({});
        });
    }
}

void WorkloadVcpus::resume() {
    for (Workload* workload : workloads_) workload->resume();
}

Result<> WorkloadVcpus::set_throttle(unsigned percent) {
    for (Workload* workload : workloads_) workload->set_throttle(percent);
    return {};
}

}  // namespace ferry::qtest
