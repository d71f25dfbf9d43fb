// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/dirty-rate.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <span>

#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kMiB = uint64_t{1} << 20;

// FNV-1a over words. The guest writes meanwhile: each word is read once, whole.
uint64_t hash_page(const system::RamBlock& block, uint64_t page) {
    constexpr uint64_t kBasis = 0xcbf29ce484222325, kPrime = 0x100000001b3;
    const auto* words =
        static_cast<uint64_t*>(static_cast<void*>(block.host().data() + page * system::kPageSize));
    uint64_t hash = kBasis;
    for (size_t i = 0; i < system::kPageSize / sizeof(uint64_t); ++i) {
        hash = (hash ^ __atomic_load_n(words + i, __ATOMIC_RELAXED)) * kPrime;
    }
    return hash;
}

// At least one page of each block.
uint64_t sample_count(const system::RamBlock& block, uint64_t pages_per_gib) {
    const double share = static_cast<double>(block.size()) / static_cast<double>(kGiB);
    const auto wanted = static_cast<uint64_t>(share * static_cast<double>(pages_per_gib));
    return std::clamp<uint64_t>(wanted, 1, block.pages());
}

}  // namespace

DirtyRate::DirtyRate(system::MainLoop& loop, util::Env& env, system::GuestMemory& memory,
                     util::Worker& worker)
    : loop_(loop), env_(env), memory_(memory), worker_(worker) {}

Result<> DirtyRate::start(DirtyRateRequest request) {
    if (state_.status == Status::Measuring) {
        return make_error(ErrorKind::InvalidState, "the dirty rate is already being measured.");
    }
    using std::chrono::duration_cast;
    state_ = {Status::Measuring, request, duration_cast<std::chrono::seconds>(env_.clock.now()), 0};
    worker_.post([this, weak = std::weak_ptr(alive_), &loop = loop_, &memory = memory_, request] {
        auto samples = std::make_shared<Samples>();
        std::minstd_rand random(std::random_device{}());
        for (const auto& block : memory.blocks()) {
            std::uniform_int_distribution<uint64_t> any_page(0, block->pages() - 1);
            for (uint64_t n = sample_count(*block, request.pages_per_gib); n > 0; --n) {
                const uint64_t page = any_page(random);
                samples->push_back({block.get(), page, hash_page(*block, page)});
            }
        }
        loop.post([this, weak, samples = std::move(samples)]() mutable {
            if (!weak.expired()) first_look_done(std::move(samples));
        });
    });
    return {};
}

void DirtyRate::first_look_done(std::shared_ptr<Samples> samples) {
    first_look_ = env_.clock.now();
    timer_ = loop_.every(state_.request.time, [this, samples = std::move(samples)] {
        const auto kept = samples;  // the closure goes with the timer
        timer_.reset();
        wait_is_over(kept);
    });
}

void DirtyRate::wait_is_over(const std::shared_ptr<Samples>& samples) {
    worker_.post([this, weak = std::weak_ptr(alive_), &loop = loop_, samples] {
        const auto changed = std::ranges::count_if(*samples, [](const Sample& sample) {
            return hash_page(*sample.block, sample.page) != sample.hash;
        });
        loop.post([this, weak, changed, sampled = samples->size()] {
            if (!weak.expired()) measured(static_cast<uint64_t>(changed), sampled);
        });
    });
}

void DirtyRate::measured(uint64_t changed, uint64_t sampled) {
    uint64_t total = 0;
    for (const auto& block : memory_.blocks()) total += block->size();
    const std::chrono::duration<double> took = env_.clock.now() - first_look_;
    const double share =
        sampled == 0 ? 0 : static_cast<double>(changed) / static_cast<double>(sampled);
    const double mib = share * static_cast<double>(total) / static_cast<double>(kMiB);
    state_.mib_per_s = static_cast<uint64_t>(mib / std::max(took.count(), 0.001));
    state_.status = Status::Measured;
}

}  // namespace ferry::vmm
