// SPDX-License-Identifier: BSD-2-Clause
// IncomingSession: one attempt to receive the VM over an open channel. Its thread (mig/dst/main)
// loads, has everything validated, waits for the source's GO where both sides know it, and only
// then has the VM started. docs/devel/migration.rst.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "migration/incoming-channels.h"
#include "migration/multifd-recv.h"
#include "migration/peer-watch.h"
#include "migration/return-path.h"
#include "migration/session.h"
#include "migration/state-inbox.h"

namespace ferry::migration {

class IncomingSession final : public LoadSession, private LoadEvents {
 public:
    enum class Mode : uint8_t { Live, Snapshot };
    // How it ended for the VM.
    enum class Ending : uint8_t {
        Loaded,     // it runs, or stands still as it was told
        Discarded,  // nothing of it is worth keeping
        Kept,       // complete and validated, but it may be running elsewhere: a person decides
    };
    struct Outcome {
        Result<> result;
        Ending ending = Ending::Discarded;
    };
    // Loop thread, once, after the thread has ended: destroy the session then.
    using Finished = std::move_only_function<void(Outcome)>;

    // Loop thread.
    static Result<std::unique_ptr<IncomingSession>> start(SessionContext& vm, Capabilities caps,
                                                          Mode mode, IncomingSet channels,
                                                          Finished finished);
    ~IncomingSession() override = default;

    // Loop thread: ends the attempt with this reason.
    void abort(Error reason);

    // LoadSession
    const Capabilities& capabilities() const override { return capabilities_; }
    PeerFeatures peer_features() const override { return agreed_; }
    Result<> approve_switchover() override;
    MultifdReceiver* multifd() override { return multifd_.get(); }
    const StreamOptions& stream_options() const override { return vm_.stream; }
    bool page_channels_take_state() const override;
    StateQueue& state_queue(const SectionId& section, uint64_t limit,
                            StateWriter::Via via) override;

 private:
    IncomingSession(SessionContext& vm, Capabilities caps, Mode mode, IncomingSet channels,
                    Finished finished);

    // The phases, in order; load thread.
    void thread_main();
    Result<> run();
    Result<> load();
    Result<> validate();
    Result<> wait_for_go();
    Result<> start_vm();
    void report_failure(const Error& error);
    void close_return_path();
    Error prefer_first_failure(Error main) const;
    void close_page_channels();

    // LoadEvents, load thread
    Result<> open_return_path() override;
    Result<> ping(uint32_t value) override;
    Result<> switchover_start() override;
    Result<> first_section() override;

    SessionContext& vm_;
    const Capabilities capabilities_;
    const MultifdCompression compression_;
    const Mode mode_;
    Finished finished_;

    // load thread
    std::unique_ptr<MigrationChannel> channel_;
    std::vector<std::byte> channel_begin_;  // of the main channel's bytes, read already
    const std::vector<std::unique_ptr<MigrationChannel>> page_channels_;
    const size_t page_begin_bytes_;
    std::unique_ptr<PeerWatch> watch_;  // made and destroyed on the loop thread
    std::unique_ptr<WatchedSource> source_;
    std::unique_ptr<LoadStream> stream_;
    std::unique_ptr<StateInbox> inbox_;
    std::unique_ptr<MultifdReceiver> multifd_;
    std::unique_ptr<ReturnPathWriter> writer_;
    bool headed_ = false;           // the stream's header has come
    std::optional<Error> refusal_;  // of the stream's header, until it can be told
    PeerFeatures agreed_;
    std::mutex acks_mutex_;
    size_t acks_missing_ = 0;  // guarded by it
    size_t set_up_ = 0;        // registry entries whose load_cleanup is owed
    Ending ending_ = Ending::Discarded;
    enum class Owner : uint8_t {
        Source,   // the source has it, or takes it back
        InDoubt,  // READY was sent: the source may hand it over at any moment
        Us,       // GO was received
    } owner_ = Owner::Source;

    std::jthread thread_;  // last: joined before the rest goes
};

}  // namespace ferry::migration
