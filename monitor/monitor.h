// SPDX-License-Identifier: BSD-2-Clause
// The monitors of one VM, put together: commands, QMP and HMP sessions, events. This is what a
// hypervisor creates. Main loop thread only. See docs/devel/monitor.rst.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "monitor/command.h"
#include "monitor/events.h"
#include "monitor/hmp-session.h"
#include "monitor/hmp.h"
#include "monitor/qmp-server.h"
#include "monitor/run-control.h"
#include "monitor/vm-control.h"

namespace ferry::monitor {

class Monitor final : private HmpHost {
 public:
    // `vm` outlives the monitor.
    explicit Monitor(VmControl& vm);
    ~Monitor() override;
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    void add_qmp(std::unique_ptr<MonitorTransport> transport, Layout layout);
    // At a terminal lines can be edited.
    void add_hmp(std::unique_ptr<MonitorTransport> transport);

    // For commands and events of the hypervisor's own.
    CommandTable& commands() { return commands_; }
    Events& events() { return events_; }

 private:
    // Somebody at a prompt who waits for a migration to end.
    struct MigrationWait {
        std::move_only_function<void()> ended;
        util::Registration registration;
    };
    void when_migration_ended(std::move_only_function<void()> ended) override;
    MigrationGlobals migration_globals() const override {
        return {.stream = vm_.migration().stream_options(),
                .only_migratable = vm_.migration().blockers().only_migratable()};
    }

    VmControl& vm_;
    CommandTable commands_;
    RunControl run_;
    Hmp hmp_;
    QmpServer server_;
    Events events_;
    std::list<MigrationWait> waits_;
    std::vector<std::unique_ptr<HmpSession>> hmp_sessions_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ferry::monitor
