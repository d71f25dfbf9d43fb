// SPDX-License-Identifier: BSD-2-Clause
// The ways to find out how fast memory gets dirty.
#pragma once

#include <cstdint>
#include <memory>

#include "system/memory.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/result.h"

namespace ferry::vmm {

// One measurement. Its methods take a while: on a worker, one at a time.
class DirtyRateProbe {
 public:
    virtual ~DirtyRateProbe() = default;
    virtual Result<> begin() = 0;
    struct Found {
        uint64_t bytes = 0;  // that were written since begin()
        util::Nanoseconds took{};
    };
    virtual Found finish() = 0;
};

// Some pages of each block, at least one, are hashed and hashed again; the share that changed
// stands for all.
std::unique_ptr<DirtyRateProbe> make_sampling_probe(const util::Clock& clock,
                                                    const system::GuestMemory& memory,
                                                    uint64_t pages_per_gib);

// Every page that the dirty log names: what the VMM and the CPUs wrote, not what devices did by
// DMA. `cpus` reports what CPUs wrote; null where none write by themselves. When a migration begins
// meanwhile, the log is its, and what was found up to then is the result. InvalidState while a
// migration has the log already. Main loop thread.
Result<std::unique_ptr<DirtyRateProbe>> make_log_probe(const util::Clock& clock,
                                                       system::GuestMemory& memory,
                                                       system::DirtyTracker* cpus);

}  // namespace ferry::vmm
