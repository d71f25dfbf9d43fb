// SPDX-License-Identifier: BSD-2-Clause
// How fast the guest dirties its memory: one measurement at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "system/main-loop.h"
#include "system/memory.h"
#include "system/vmm/dirty-rate-probe.h"
#include "util/env.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/thread.h"

namespace ferry::vmm {

enum class DirtyRateMode : uint8_t { PageSampling, DirtyBitmap, DirtyRing };

struct DirtyRateRequest {
    std::chrono::milliseconds time{0};
    DirtyRateMode mode = DirtyRateMode::PageSampling;
    uint64_t pages_per_gib = 512;  // PageSampling
};

// Main loop thread.
class DirtyRate {
 public:
    static constexpr std::chrono::milliseconds kMinTime{50}, kMaxTime{60'000};
    static constexpr uint64_t kMinSamples = 128, kMaxSamples = 16384, kDefaultSamples = 512;

    enum class Status : uint8_t { Unstarted, Measuring, Measured };
    struct State {
        Status status = Status::Unstarted;
        DirtyRateRequest request{.pages_per_gib = 0};
        std::chrono::seconds begin{0};  // of the process's clock
        uint64_t mib_per_s = 0;         // once Measured
    };

    struct Parts {
        system::MainLoop& loop;
        util::Env& env;
        system::GuestMemory& memory;
        system::DirtyTracker* cpu_writes;  // null where no CPU writes by itself
        enum class Log : uint8_t { Bitmap, Ring } log;
    };
    // All outlive this; `worker` has ended its jobs before.
    DirtyRate(const Parts& parts, util::Worker& worker);

    // Returns at once. InvalidState while one is under way, and where the mode can't be used now.
    Result<> start(DirtyRateRequest request);
    const State& state() const { return state_; }
    // Of the modes that count pages only the one for the VM's dirty log is there.
    bool offers(DirtyRateMode mode) const;

 private:
    using Probe = std::shared_ptr<DirtyRateProbe>;

    Result<std::unique_ptr<DirtyRateProbe>> make_probe(const DirtyRateRequest& request);
    void begun_looking(const Probe& probe, Result<> begun);
    void wait_is_over(const Probe& probe);
    void measured(const DirtyRateProbe::Found& found);

    const Parts parts_;
    util::Worker& worker_;
    State state_;
    std::optional<util::Registration> timer_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ferry::vmm
