// SPDX-License-Identifier: BSD-2-Clause
// VfioDirtyTracker: what the VFIO devices of one VM wrote into guest memory. Chosen per device: its
// own DMA log, or nobody knows, which makes all memory it can reach dirty at every sync.
// docs/devel/vfio-migration.rst, "Guest memory".
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"
#include "util/env.h"
#include "util/registration.h"
#include "util/thread.h"

namespace ferry::vfio {

enum class DirtySource : uint8_t {
    DeviceLog,  // features 6 to 8
    Nobody,
};
// Whether the device may be asked while it runs (x-pre-copy-dirty-page-tracking).
enum class PrecopyQueries : uint8_t { Yes, No };

// At most two ranges that cover all mapped RAM: below and above 4 GiB. Between them lies the hole
// that would be beyond the reach of some hardware.
std::vector<DmaLogRange> dma_log_ranges(const system::GuestMemory& memory);

// As system::DirtyTracker says: one thread at a time. Devices come and go on the main loop thread
// while no migration runs.
class VfioDirtyTracker final : public system::DirtyTracker {
 public:
    struct Device {
        std::string label;
        VfioDeviceIo& io;
        util::Worker& worker;  // all calls go through it
        DirtySource source;
        PrecopyQueries precopy;
    };

    VfioDirtyTracker(system::GuestMemory& memory, util::Env& env) : memory_(memory), env_(env) {}

    util::Registration add(Device device);
    bool empty() const { return members_.empty(); }

    std::string_view name() const override { return "vfio"; }
    Result<> dirty_log_start() override;
    void dirty_log_stop() override;
    void dirty_log_sync(system::SyncPhase phase, system::DirtySink& sink) override;

 private:
    struct Member {
        Device device;
        bool logging = false;
        bool stop_failed = false;  // it may still be logging, though nobody asks
        bool failure_told = false;
    };
    struct Query;

    void stop_log(Member& member);
    void sync_range(const std::vector<Member*>& members, DmaLogRange range,
                    system::DirtySink& sink);
    void report_failed(Member& member, DmaLogRange range, const Error& error);

    system::GuestMemory& memory_;
    util::Env& env_;
    std::list<Member> members_;
};

}  // namespace ferry::vfio
