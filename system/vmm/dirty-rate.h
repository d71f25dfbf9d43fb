// SPDX-License-Identifier: BSD-2-Clause
// How fast the guest dirties its memory, by sampling: some pages of each block are hashed, and
// hashed again after a while; the share that changed stands for all.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "system/main-loop.h"
#include "system/memory.h"
#include "util/env.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/thread.h"

namespace ferry::vmm {

struct DirtyRateRequest {
    std::chrono::milliseconds time{0};
    uint64_t pages_per_gib = 512;
};

// Main loop thread.
class DirtyRate {
 public:
    static constexpr std::chrono::milliseconds kMinTime{50}, kMaxTime{60'000};
    static constexpr uint64_t kMinSamples = 128, kMaxSamples = 16384, kDefaultSamples = 512;

    enum class Status : uint8_t { Unstarted, Measuring, Measured };
    struct State {
        Status status = Status::Unstarted;
        DirtyRateRequest request{std::chrono::milliseconds(0), 0};
        std::chrono::seconds begin{0};  // of the process's clock
        uint64_t mib_per_s = 0;         // once Measured
    };

    // All outlive this; `worker` has ended its jobs before.
    DirtyRate(system::MainLoop& loop, util::Env& env, system::GuestMemory& memory,
              util::Worker& worker);

    // Returns at once. InvalidState while one is under way.
    Result<> start(DirtyRateRequest request);
    const State& state() const { return state_; }

 private:
    struct Sample {
        const system::RamBlock* block;
        uint64_t page;
        uint64_t hash;
    };
    using Samples = std::vector<Sample>;

    void first_look_done(std::shared_ptr<Samples> samples);
    void wait_is_over(const std::shared_ptr<Samples>& samples);
    void measured(uint64_t changed, uint64_t sampled);

    system::MainLoop& loop_;
    util::Env& env_;
    system::GuestMemory& memory_;
    util::Worker& worker_;
    State state_;
    util::Nanoseconds first_look_{};
    std::optional<util::Registration> timer_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ferry::vmm
