// SPDX-License-Identifier: BSD-2-Clause
// Private to hw/vfio: the records of a VFIO section and what the devices of one VM share.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "hw/vfio/vfio-migration.h"
#include "util/registration.h"

namespace ferry::vfio {

class VfioDirtyTracker;

// Each record of a section's body starts with one of these, big-endian. Layout of the rest:
// docs/interop/stream-format.rst.
namespace record {
inline constexpr uint64_t kEndOfState = 0xffffffffef100001;
inline constexpr uint64_t kConfigState = 0xffffffffef100002;
inline constexpr uint64_t kSetupState = 0xffffffffef100003;
inline constexpr uint64_t kDataState = 0xffffffffef100004;
inline constexpr uint64_t kInitDataSent = 0xffffffffef100005;
inline constexpr uint64_t kConfigLoadReady = 0xffffffffef100006;
// Ferry only, after the hello.
inline constexpr uint64_t kDiscard = 0xffffffffef1000f1;
inline constexpr uint64_t kConfigSize = 0xffffffffef1000f2;
}  // namespace record

// What anybody may look at while the device works. Thread-safe; outlives the device as long as
// somebody looks.
struct DeviceStatus {
    std::string label;
    std::atomic<MigState> state = MigState::Running;  // Error: broken
    std::atomic<uint64_t> sent_bytes = 0;
    std::atomic<uint64_t> loaded_bytes = 0;
};

struct VfioMigrationServices::Members {
    struct Device {
        std::shared_ptr<DeviceStatus> status;  // null: can't migrate at all
        bool p2p = false;
        bool blocked = false;  // carries a blocker of its own
    };
    using Handle = std::list<Device>::iterator;

    Handle add(Device device);
    void remove(Handle handle);
    void set_blocked(Handle handle, bool blocked);
    // Several devices migrate together only if all of them can be made quiescent towards peers:
    // the labels of those that can't, empty where there is no need.
    std::vector<std::string> lacking_p2p() const;
    void count_sent(DeviceStatus& status, uint64_t bytes);

    std::atomic<uint64_t> bytes_sent = 0;
    mutable std::mutex mutex;
    std::list<Device> devices;  // guarded by mutex

    // Main loop thread.
    util::Registration p2p_blocker;
    std::string p2p_reason;                           // of the blocker; empty: there is none
    std::unique_ptr<VfioDirtyTracker> dirty_tracker;  // from the first device on
    util::Registration dirty_registration;
};

}  // namespace ferry::vfio
