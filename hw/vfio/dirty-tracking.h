// SPDX-License-Identifier: BSD-2-Clause
// VfioDirtyTracker: what the VFIO devices of one VM wrote into guest memory. Chosen per device: its
// own DMA log, or what the IOMMU knows, or nobody, which makes all memory it can reach dirty at
// every sync. docs/devel/dirty-tracking.rst.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/dirty-tracker.h"
#include "hw/vfio/dma-space.h"
#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"
#include "util/env.h"
#include "util/registration.h"
#include "util/thread.h"

namespace ferry::vfio {

enum class DirtySource : uint8_t {
    DeviceLog,  // features 6 to 8
    Iommu,      // VfioDeviceIo::iommu_dirty_log
    Nobody,
};
// Whether the device may be asked while it runs (x-pre-copy-dirty-page-tracking).
enum class PrecopyQueries : uint8_t { Yes, No };

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
        DmaSpace* space = nullptr;  // null: its addresses are guest physical ones
    };

    VfioDirtyTracker(system::GuestMemory& memory, util::Env& env) : memory_(memory), env_(env) {}

    util::Registration add(Device device);
    bool empty() const { return members_.empty(); }

    std::string_view name() const override { return "vfio"; }
    Result<> dirty_log_start() override;
    void dirty_log_stop() override;
    void dirty_log_sync(system::SyncPhase phase, system::DirtySink& sink) override;

 private:
    struct Log {
        std::unique_ptr<DmaTracker> tracker;
        const IommuDirtyLog* iommu;  // null: a device's own
        util::Worker* worker;        // of one of its devices
        bool running = false;
        bool stop_failed = false;  // it may still be logging, though nobody asks
        bool failure_told = false;
        // Of a query.
        util::Bitmap pages;
        Result<> result;
    };
    struct Member {
        Device device;
        Log* log;  // null: nobody
    };
    // Who is asked about the memory of one address space.
    struct Asked {
        std::vector<Log*> logs;
        size_t devices = 0;
        size_t untracked = 0;  // more devices, of which nobody knows
    };
    // Memory under two addresses, the devices' and the guest's.
    struct Area {
        system::Iova iova;
        system::Gpa gpa;
        uint64_t length;
    };

    Log* log_for(const Device& device);
    void remove(std::list<Member>::iterator member);
    Result<> start_log(Log& log);
    void stop_log(Log& log);
    void set_space_tracking();
    void follow_memory(system::SyncPhase phase, system::DirtySink& sink);
    std::map<DmaSpace*, Asked> asked(system::SyncPhase phase);
    void sync_area(const Asked& asked, Area area, system::DirtySink& sink);
    void sync_piece(const Asked& asked, Area piece, system::DirtySink& sink);
    void report_failed(Log& log, Area piece);

    system::GuestMemory& memory_;
    util::Env& env_;
    std::list<Log> logs_;
    std::list<Member> members_;
    std::vector<DmaLogRange> ranges_;  // what the running logs were started for
};

}  // namespace ferry::vfio
