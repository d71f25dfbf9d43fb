// SPDX-License-Identifier: BSD-2-Clause
// OutgoingSession: one attempt to send the VM, from the open channel to its outcome. Its thread
// (mig/src/main) walks through the phases of run(); the main loop starts, cancels and collects it.
// docs/devel/migration.rst draws the phases and says who owns the VM when.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "migration/auto-converge.h"
#include "migration/multifd-send.h"
#include "migration/peer-watch.h"
#include "migration/rate.h"
#include "migration/return-path.h"
#include "migration/session.h"
#include "migration/state-send.h"
#include "util/event-fd.h"

namespace ferry::migration {

class OutgoingSession final : public SaveSession, private ReturnPathEvents {
 public:
    // Runs on the session's thread; may block, the event wakes it.
    using Opener =
        std::function<Result<std::unique_ptr<MigrationChannel>>(const util::EventFd& cancel)>;
    struct Callbacks {
        // Loop thread: the channel is open, or could not be opened.
        std::move_only_function<void(Result<>)> opened;
        // Loop thread, once, after the thread has ended: destroy the session then.
        std::move_only_function<void(Result<>)> finished;
    };

    // Loop thread. Asks every handler's save_prepare, then starts the thread. An Error means that
    // nothing has begun.
    static Result<std::unique_ptr<OutgoingSession>> start(SessionContext& vm, Capabilities caps,
                                                          Mode mode, Opener opener,
                                                          Callbacks callbacks);
    ~OutgoingSession() override = default;

    // Loop thread. No effect once the VM was handed over.
    void cancel();
    Result<> continue_switchover(MigrationStatus state);
    // Whether a failure that follows can no longer bring the VM back.
    bool handed_over() const;

    // SaveSession
    Mode mode() const override { return mode_; }
    const Capabilities& capabilities() const override { return capabilities_; }
    const Parameters& parameters() const override { return parameters_; }
    Result<PeerFeatures> peer_features() override;
    bool round_is_full() const override;
    MultifdSender* multifd() override { return multifd_.get(); }
    const StreamOptions& stream_options() const override { return vm_.stream; }
    bool page_channels_take_state() const override;
    Result<StateWriter*> state_writer(SaveVMHandlers& handlers, size_t bytes,
                                      StateWriter::Via via) override;

 private:
    OutgoingSession(SessionContext& vm, Capabilities caps, Mode mode, util::EventFd cancel);
    static Error cancelled();

    // The phases, in order; migration thread.
    void thread_main();
    Result<> run();
    Error hear_last_words(Error closed);
    Result<> open();
    Result<> setup();
    Result<> iterate();
    Result<> stop_vm();
    Result<> wait_for_continue();
    Result<> complete();
    Result<> hand_over();
    // After run() failed: the VM back into its former state, unless it was handed over.
    Result<> take_back();
    Result<> resume_vm();
    bool nobody_else_has_it() const;
    void tell_that_the_vm_stays();

    Result<> open_return_path();
    void ask_whether_set_up();
    void save_ping(uint32_t value);
    Result<> send_round();
    void pause_until(util::Nanoseconds deadline);  // or until there is something to do
    Result<uint64_t> pending();
    bool may_switch_over() const;
    Result<> save_ends();
    Result<> send_end(std::string_view description);
    Result<> lost_after_the_end(Error error);
    Result<> await_hello();
    Result<PeerFeatures> await_features_or_shut();
    Result<> hand_over_unconfirmed();
    Result<> await_refusal();
    bool may_hear_unasked() const;
    Result<> await_shut(Error lost);
    Result<> send_go();
    // Waits until `ready` says so (called with mutex_ held); fails when cancelled or when the
    // return path ended. Keeps the line alive meanwhile.
    Result<> wait_for(const std::function<bool()>& ready, PeerWatch::Expect expect);
    Result<> check_alive();
    void keep_alive();
    Result<> go_on_waiting();
    // Bytes per second that the last pass is thought to go with; 0: not known yet.
    uint64_t switchover_bandwidth() const;
    uint64_t threshold() const;
    // Bytes on all channels.
    uint64_t transferred() const;
    util::Nanoseconds writing() const;
    Result<> open_channels();
    void shut_channels(const Error& reason);
    void publish_progress();

    // ReturnPathEvents, reader's thread
    void rp_pong(uint32_t value) override;
    void rp_switchover_ack() override;
    void rp_ready() override;
    void rp_failure(uint32_t code, std::string reason) override;
    void rp_shut(uint32_t status) override;
    void rp_ended(Result<> how) override;

    // Who has the VM.
    enum class Stage : uint8_t {
        Sending,  // we
        AllSent,  // we, until a peer without the hand-over of Ferry confirms with SHUT
        Offered,  // we, but the peer may hold a complete VM and waits for GO
        // the peer, unless it refuses: it may have everything and was not asked to confirm
        Unconfirmed,
        HandedOver,  // the peer, whatever becomes of it: GO went out, or it confirmed without one
    };
    // What is known of the other side and of our own user; guarded by mutex_.
    struct Progress {
        Stage stage = Stage::Sending;
        bool cancelled = false;
        bool continued = false;  // migrate-continue came
        bool acked = false;      // SWITCHOVER_ACK
        bool ready = false;      // READY
        enum class SetUp : uint8_t { NotAsked, Asked, Yes } peer_set_up = SetUp::NotAsked;
        std::optional<PeerFeatures> features;
        std::optional<uint32_t> shut;
        std::optional<std::string> peer_reason;
        std::optional<Result<>> rp_end;
    };

    SessionContext& vm_;
    const Capabilities capabilities_;
    const Parameters parameters_;
    const StreamIdentity identity_;  // as much as is told
    const Mode mode_;
    Opener opener_;
    Callbacks callbacks_;
    util::EventFd cancel_event_;
    std::unique_ptr<OpenWatch> open_watch_;  // made and destroyed on the loop thread

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Progress progress_;
    bool given_away() const { return progress_.stage >= Stage::Unconfirmed; }  // mutex_ held
    std::vector<MigrationChannel*> shared_channels_;  // for cancel(); guarded by mutex_

    // migration thread
    std::unique_ptr<MigrationChannel> channel_;
    std::vector<std::unique_ptr<MigrationChannel>> page_channels_;
    std::unique_ptr<TimedSink> sink_;
    std::unique_ptr<SaveStream> stream_;
    std::unique_ptr<StateSender> device_state_;
    std::unique_ptr<MultifdSender> multifd_;  // may have some of the device state
    std::unique_ptr<PeerWatch> watch_;        // made and destroyed on the loop thread
    std::unique_ptr<ReturnPathReader> reader_;
    RateControl rate_;
    Throughput throughput_;
    std::optional<AutoConverge> auto_converge_;  // from the first round to the outcome
    util::Nanoseconds last_keep_alive_{};
    system::RunState former_state_ = system::RunState::Running;
    enum class Vm : uint8_t { Untouched, Stopped } vm_state_ = Vm::Untouched;
    size_t set_up_ = 0;  // registry entries whose save_cleanup is owed

    std::jthread thread_;  // last: joined before the rest goes
};

}  // namespace ferry::migration
