// SPDX-License-Identifier: BSD-2-Clause
// What happens to the VM, as QMP events: those that follow from the run state and the migration
// by themselves, the others by call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "monitor/qmp-server.h"
#include "monitor/schema.h"
#include "monitor/vm-control.h"
#include "util/registration.h"

namespace ferry::monitor {

enum class ShutdownCause : uint8_t {
    HostError,
    HostQmpQuit,
    HostQmpSystemReset,
    HostSignal,
    GuestShutdown,
    GuestReset,
    GuestPanic,
};
std::string_view to_string(ShutdownCause cause);  // "host-qmp-quit"

// An event as query-qmp-schema tells it.
struct EventShape {
    std::string name;
    std::vector<Member> data;
};
std::vector<EventShape> event_shapes();

class Events {
 public:
    // Both outlive this.
    Events(VmControl& vm, QmpServer& server);

    // Any thread.
    void shutdown(ShutdownCause cause);
    void reset(ShutdownCause cause);
    void powerdown();  // the guest was asked to shut down
    void suspend();    // the guest went to suspend-to-RAM
    void wakeup();     // and came back
    void device_deleted(std::string_view id);
    void vfio_migration(const std::string& id, const std::string& qom_path, vfio::MigState state);

 private:
    QmpServer& server_;
    util::Registration runstate_;
    util::Registration status_;
    util::Registration pass_;
};

}  // namespace ferry::monitor
