// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>
#include <atomic>
#include <random>
#include <vector>

#include "system/vmm/dirty-rate-probe.h"

namespace ferry::vmm {

namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

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

class SamplingProbe final : public DirtyRateProbe {
 public:
    SamplingProbe(const util::Clock& clock, const system::GuestMemory& memory,
                  uint64_t pages_per_gib)
        : clock_(clock), memory_(memory), pages_per_gib_(pages_per_gib) {}

    Result<> begin() override {
        std::minstd_rand random(std::random_device{}());
        for (const auto& block : memory_.blocks()) {
            std::uniform_int_distribution<uint64_t> any_page(0, block->pages() - 1);
            for (uint64_t n = sample_count(*block, pages_per_gib_); n > 0; --n) {
                const uint64_t page = any_page(random);
                samples_.push_back({block.get(), page, hash_page(*block, page)});
            }
        }
        began_ = clock_.now();
        return {};
    }
    Found finish() override {
        const auto changed = std::ranges::count_if(samples_, [](const Sample& sample) {
            return hash_page(*sample.block, sample.page) != sample.hash;
        });
        uint64_t total = 0;
        for (const auto& block : memory_.blocks()) total += block->size();
        const double share =
            samples_.empty() ? 0
                             : static_cast<double>(changed) / static_cast<double>(samples_.size());
        return {static_cast<uint64_t>(share * static_cast<double>(total)), clock_.now() - began_};
    }

 private:
    struct Sample {
        const system::RamBlock* block;
        uint64_t page;
        uint64_t hash;
    };

    const util::Clock& clock_;
    const system::GuestMemory& memory_;
    const uint64_t pages_per_gib_;
    util::Nanoseconds began_{};
    std::vector<Sample> samples_;
};

}  // namespace

std::unique_ptr<DirtyRateProbe> make_sampling_probe(const util::Clock& clock,
                                                    const system::GuestMemory& memory,
                                                    uint64_t pages_per_gib) {
    return std::make_unique<SamplingProbe>(clock, memory, pages_per_gib);
}

}  // namespace ferry::vmm
