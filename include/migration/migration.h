// SPDX-License-Identifier: BSD-2-Clause
// The migration of one VM: its settings, the attempt under way, and the commands that QMP offers.
// See docs/devel/migration.rst for threads and docs/devel/run-state.rst for what each command does
// in each state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "migration/blocker.h"
#include "migration/capabilities.h"
#include "migration/channel.h"
#include "migration/device-state-accounting.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/status.h"
#include "migration/stream-options.h"
#include "system/main-loop.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/env.h"

namespace ferry::migration {

// Of the source, while and after it moves data.
struct MigrationCounters {
    uint64_t transferred = 0, remaining = 0, total = 0, duplicate = 0, normal = 0;
    uint64_t dirty_pages_rate = 0, dirty_sync_count = 0;
    // What was transferred, by way: main channel while the VM ran and stood still, page channels.
    uint64_t precopy_bytes = 0, downtime_bytes = 0, multifd_bytes = 0;
    double mbps = 0;
    uint64_t pages_per_second = 0;
    uint64_t total_time_ms = 0, setup_time_ms = 0;
    std::optional<uint64_t> expected_downtime_ms, downtime_ms;
    unsigned cpu_throttle_percentage = 0;  // 0: none
    std::optional<uint64_t> vfio_transferred;
};

// What `query-migrate` answers. Times in milliseconds, sizes in bytes.
struct MigrationInfo {
    Role role = Role::Source;
    MigrationStatus status = MigrationStatus::None;
    std::optional<std::string> error_desc;
    std::optional<MigrationCounters> counters;
    std::optional<MigrationAddress> listening;  // destination
};

enum class ExitOnError : uint8_t { No, Yes };

// Fires on the main loop thread, once per outgoing attempt, after the attempt's thread has ended
// and the VM is where it belongs.
enum class MigrationEvent : uint8_t { Setup, Completed, Failed };

// Main loop thread, unless a method says otherwise.
class Migration {
 public:
    struct Deps {
        system::MainLoop& loop;
        util::Env& env;
        system::RunStateController& runstate;
        system::GuestMemory& memory;
        SaveVMRegistry& registry;
        DeviceStateAccounting& device_state;
        std::string machine_name;
        std::optional<Uuid> uuid = std::nullopt;  // for validate-uuid
    };
    // Registers RAM and the global state: before any device, so that they come first.
    static Result<std::unique_ptr<Migration>> create(Deps deps);
    ~Migration();  // no attempt may be running: see shut_down()

    const Capabilities& capabilities() const;
    Parameters parameters() const;  // any thread
    // All or nothing. InvalidState while a migration is in progress.
    Result<> set_capabilities(std::span<const std::pair<Capability, bool>> changes);
    // Allowed at any time; bandwidth and downtime act at once.
    Result<> set_parameters(const Parameters& wanted);

    // Starts an outgoing attempt. Errors are refusals: nothing has begun. `opened` (may be null)
    // is called when a channel that opens at once was opened or failed to.
    Result<> migrate(const MigrationAddress& address, FdTable& fds, system::Done opened);
    // With capability multifd `pages` are as many as parameter multifd-channels says.
    Result<> migrate(std::unique_ptr<MigrationChannel> channel,
                     std::vector<std::unique_ptr<MigrationChannel>> pages = {});
    // Always succeeds; no effect when nothing runs or the VM was handed over already.
    void migrate_cancel();
    Result<> migrate_continue(MigrationStatus state);

    // Whether the VM starts once loaded: RunStateController::autostart().
    Result<> migrate_incoming(const MigrationAddress& address, FdTable& fds, ExitOnError exit);
    Result<> migrate_incoming(std::unique_ptr<MigrationChannel> channel, ExitOnError exit,
                              std::vector<std::unique_ptr<MigrationChannel>> pages = {});

    // A stopped VM to a channel and back, without peer: savevm and loadvm. `done` when over; the VM
    // is then in its former run state (load: paused or running as saved).
    Result<> save_snapshot(std::unique_ptr<MigrationChannel> channel, system::Done done);
    Result<> load_snapshot(std::unique_ptr<MigrationChannel> channel, system::Done done);

    // Of the next attempt.
    void set_stream_options(StreamOptions options);
    StreamOptions stream_options() const;

    MigrationInfo query() const;  // any thread
    bool in_progress() const;     // either direction
    BlockerList& blockers();

    util::Registration on_status(std::function<void(Role, MigrationStatus)> listener);
    util::Registration on_pass(std::function<void(uint64_t)> listener);
    util::Registration on_event(std::function<Result<>(MigrationEvent)> listener);
    // A failed incoming attempt that was to end the process.
    void set_exit_request(std::function<void(const Error&)> handler);

    // Cancels what runs and calls `done` when no thread is left. The loop must keep running.
    void shut_down(std::function<void()> done);

 private:
    struct Impl;
    explicit Migration(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ferry::migration
