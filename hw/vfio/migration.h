// SPDX-License-Identifier: BSD-2-Clause
// VfioMigration: one VFIO device as a participant of migration (section "PATH/vfio") and of run
// state changes. One idea per file: migration-probe.cc decides, migration-run-state.cc stops and
// starts, migration-save.cc sends, migration-load.cc receives, migration-state.cc drives the state
// machine. Pictures, threads and locks: docs/devel/vfio-migration.rst.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/dirty-tracking.h"
#include "hw/vfio/migration-internal.h"
#include "hw/vfio/migration-state.h"
#include "hw/vfio/state-loader.h"
#include "hw/vfio/vfio-device.h"
#include "migration/savevm.h"
#include "system/runstate.h"

namespace ferry::vfio {

class VfioMigration final : public VfioDeviceMigration,
                            public migration::SaveVMHandlers,
                            public migration::DeviceStateHandlers,
                            public system::VmChangeHandler,
                            private DeviceState::Listener {
 public:
    struct Setup {
        VfioVm vm;
        VfioIdentity identity;
        VfioProperties properties;
        VfioDeviceIo& io;
        util::Worker& worker;
        VfioConfigState* config;  // may be null: nothing to save
        MigCaps caps;
        MigState state;  // where the device is now
        DirtySource dirty_source;
    };
    explicit VfioMigration(Setup setup);
    ~VfioMigration() override;
    VfioMigration(const VfioMigration&) = delete;
    VfioMigration& operator=(const VfioMigration&) = delete;

    // Enters all lists; `blocker` (may be empty) is a reason of the device's own not to migrate.
    Result<> join(const std::string& blocker);

    void device_was_reset() override;
    void set_multifd_transfer(OnOffAuto value) override { multifd_transfer_ = value; }

    // SaveVMHandlers
    const migration::SectionId& section() const override { return section_; }
    Result<> save_prepare(migration::SaveSession& session) override;
    Result<> save_setup(migration::SaveSession& session, migration::SaveStream& out) override;
    uint64_t state_pending_estimate() override;
    Result<uint64_t> state_pending_exact() override;
    bool is_active_iterate() override;
    Result<migration::IterateStatus> save_live_iterate(migration::SaveStream& out) override;
    Result<> save_live_complete_precopy(migration::SaveStream& out) override;
    Sections sections() const override { return Sections::LiveAndFull; }
    migration::DeviceStateHandlers* device_state() override { return this; }
    Result<> save_state(migration::SaveStream& out) override;
    void save_cleanup(Outcome outcome) noexcept override;
    Result<> load_setup(migration::LoadSession& session) override;
    bool switchover_ack_needed() const override { return setup_.caps.pre_copy; }
    Result<> load_state(migration::LoadStream& in, migration::SectionKind kind,
                        uint32_t version) override;
    Result<> switchover_start() override;
    void load_validate(system::Done done) override;
    void load_cleanup(Outcome outcome) noexcept override;

    // DeviceStateHandlers
    Result<> save_live_complete_precopy_thread(migration::StateWriter& out) override;
    Result<> save_state_block(migration::SaveStream& out, migration::StatePacketKind kind,
                              ConstBytes data) override;

    // VmChangeHandler
    std::string_view name() const override { return label_; }
    unsigned depth() const override { return setup_.identity.depth; }
    bool has_prepare() const override { return setup_.caps.p2p; }
    void vm_change(system::Pass pass, system::VmChange change, system::Done done) override;

 private:
    // DeviceState::Listener, worker
    void state_changed(MigState state) override;
    void device_broken(const std::string& reason) override;
    void device_repaired() override;

    // Run state, worker
    Result<> prepare(system::VmChange change);
    Result<> change(system::VmChange change);
    Result<> go(MigState target, system::VmChange change, std::string_view step);

    // Source, worker
    Result<> enter_setup_state(migration::SaveSession::Mode mode);
    Result<> open_pre_copy();
    Result<> enter_stop_copy();
    Result<> leave_saving_states();
    // Source, migration thread
    bool session_is_alive() const;
    enum class Former : uint8_t { Nothing, Worthless };  // what was sent of a dead session
    Result<Former> judge_former_session(bool can_discard);
    Result<migration::IterateStatus> send_pre_copy_block(migration::SaveStream& out,
                                                         MigDataStream& stream);
    Result<migration::StateWriter::Via> choose_channel(bool page_channels) const;
    Result<size_t> read_block(MigDataStream& stream, MutBytes into);
    Result<> put_block(migration::SaveStream& out, ConstBytes data);
    Result<> put_initial_data_sent(migration::SaveStream& out);
    void count_sent(uint64_t bytes, migration::StateWriter::Via via);
    Result<> put_config(migration::SaveStream& out);
    // Source, save thread
    Result<uint64_t> send_image(migration::StateWriter& out, MigDataStream& stream);
    Result<> send_config(migration::StateWriter& out);
    void adopt_session();
    void refresh_precopy_info();

    // Destination, load thread
    Result<> load_data(migration::LoadStream& in);
    Result<> write_all(MigDataStream& stream, ConstBytes bytes);
    Result<> load_config(migration::LoadStream& in);
    Result<> load_config_size(migration::LoadStream& in);
    Result<> load_init_data_sent();
    Result<> load_discard();
    Result<> load_config_load_ready();
    Result<> queue_data(migration::LoadStream& in, uint64_t bytes);
    Result<> end_image();
    void open_queue();
    void begin_span();
    void end_span();
    Result<> check_channel(std::string_view what) const;
    Error channel_error(std::string_view what) const;
    Result<std::shared_ptr<MigDataStream>> open_stream() const;
    Result<> read_config(migration::LoadStream& in);
    // Destination, load thread or loader
    Result<> begin_anew();
    Error incomplete() const;
    // Destination, loader
    Result<> load_packet(const StateLoader::Packet& packet);
    Result<> end_of_state_follows(migration::LoadStream& in, std::string_view after);
    // Destination, worker
    Result<> enter_resuming();
    Result<> validate();
    Result<> become_as_new();

    // What the migration thread remembers between save_setup and save_cleanup.
    struct Saving {
        migration::SaveSession* attempt = nullptr;
        migration::StateWriter* writer = nullptr;
        bool early = false;             // pre-copy data go where the last state goes
        std::vector<std::byte> buffer;  // for those that go by main channel
        uint64_t session = 0;           // the data session that is being sent
        uint64_t sent_of_session = 0;   // bytes
        PrecopyInfo left;
        bool initial_data_sent = false;  // one consent to switch over per device is enough
        bool size_failure_told = false;
    };
    // What the load thread remembers between load_setup and load_cleanup.
    struct Loading {
        migration::LoadSession* attempt = nullptr;
        migration::StateQueue* queue = nullptr;
        migration::StateWriter::Via via = migration::StateWriter::Via::MainChannel;
        std::shared_future<Result<>> entered;  // RESUMING, with `session`
        uint64_t session = 0;
        bool named = false;           // in the stream
        bool queue_open = false;      // the loader has the device's stream, nobody else
        bool image_complete = false;  // the END section came
        bool config_load_ready = false;
        enum class Config : uint8_t { Awaited, Read, Begun } config = Config::Awaited;
        bool switchover_approved = false;
        std::optional<util::Nanoseconds> span_begin;  // of what is loaded in the pause
        uint64_t loaded_before = 0;
        std::unique_ptr<StateLoader> loader;
    };

    Setup setup_;
    std::atomic<OnOffAuto> multifd_transfer_;
    const std::string label_;
    util::Env& env_;
    util::Worker& worker_;
    VfioMigrationServices::Members& shared_;
    migration::SectionId section_;
    const std::shared_ptr<DeviceStatus> status_;
    DeviceState state_;
    bool between_passes_ = false;  // worker: the prepare pass was made, the main pass not yet
    Saving saving_;
    Loading loading_;

    // Main loop thread.
    VfioMigrationServices::Members::Handle membership_;
    std::shared_ptr<int> alive_ =
        std::make_shared<int>(0);  // tasks posted to the loop hold it weakly
    bool blocked_ = false;         // has a blocker of its own, other than a fault
    util::Registration blocker_;
    util::Registration fault_;
    util::Registration tracking_;
    util::Registration section_registration_;
    util::Registration vm_change_registration_;
};

}  // namespace ferry::vfio
