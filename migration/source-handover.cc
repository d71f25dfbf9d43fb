// SPDX-License-Identifier: BSD-2-Clause
// The end of an attempt: the VM passes to the destination, or comes back. docs/devel/migration.rst,
// "Who owns the VM".
#include "migration/source.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

using system::RunState;

namespace {
// For a destination that nobody asked to confirm to say that it refuses, or to close.
constexpr util::Nanoseconds kRefusalWait = std::chrono::seconds(2);
}  // namespace

Result<> OutgoingSession::hand_over() {
    if (!reader_) return hand_over_unconfirmed();
    MIG_TRY(const PeerFeatures features, await_features_or_shut());
    if (!features.handover) {
        const util::ScopedSpan span(vm_.env.timeline, "vm", "confirm");
        return await_shut(make_error(ErrorKind::PeerClosed,
                                     "the destination closed the stream before it confirmed"));
    }
    {
        const std::lock_guard lock(mutex_);
        if (progress_.cancelled) return cancelled();
        progress_.stage = Stage::Offered;
    }
    trace::migration_handover(vm_.env.trace, "awaiting READY");
    {
        const util::ScopedSpan span(vm_.env.timeline, "vm", "wait-ready");
        MIG_CHECK(wait_for([this] { return progress_.ready; }, PeerWatch::Expect::Bytes),
                  "waiting for the destination to validate");
    }
    MIG_CHECK(send_go());
    const util::ScopedSpan span(vm_.env.timeline, "vm", "confirm");
    return await_shut(make_error(
        ErrorKind::PeerClosed,
        "the VM was handed over, but the destination was lost before it confirmed. The VM is "
        "stopped here: if it does not run at the destination, resume it here with 'cont'; if it "
        "does, quit this process"));
}

bool OutgoingSession::may_hear_unasked() const {
    return mode_ == Mode::Live && channel_ && channel_->features().duplex;
}

// A destination that nobody asked to confirm may run the VM as soon as it has the end: what can be
// cancelled goes out before, and once the end is out no failure brings the VM back.
Result<> OutgoingSession::send_end(std::string_view description) {
    const bool unconfirmed = mode_ == Mode::Live && !reader_;
    if (unconfirmed) {
        MIG_CHECK(stream_->flush());
        const std::lock_guard lock(mutex_);
        if (progress_.cancelled) return cancelled();
        progress_.stage = Stage::Unconfirmed;
    }
    save_end(*stream_);
    if (unconfirmed) {
        if (auto sent = stream_->flush(); !sent) {
            const std::lock_guard lock(mutex_);
            progress_.stage = Stage::Sending;
            return sent;
        }
    }
    save_description(*stream_, vm_.registry, description);
    auto sent = stream_->flush();
    // What is heard or waited for from here on is no part of the migration.
    if (unconfirmed) vm_.stats.end_ns = vm_.env.clock.now().count();
    if (!reader_) {
        auto finished = channel_->finish_writing();
        if (sent) sent = std::move(finished);
    }
    if (sent || !unconfirmed) return sent;
    return lost_after_the_end(std::move(sent).error());
}

// Only what nobody else can run comes back.
Result<> OutgoingSession::lost_after_the_end(Error error) {
    switch (channel_->features().taker) {
        case MigrationChannel::Taker::Nobody: {
            const std::lock_guard lock(mutex_);
            progress_.stage = Stage::Sending;
            return error;
        }
        case MigrationChannel::Taker::Peer:
            // It may have left without the description, which it need not read.
            trace::migration_thread_outcome(vm_.env.trace, error.message());
            return {};
        case MigrationChannel::Taker::Command: break;
    }
    return std::move(error).context(
        "the command had the whole VM before it failed. The VM is stopped here: if it does not run "
        "elsewhere, resume it here with 'cont'; if it does, quit this process");
}

// A destination that refuses says so unasked, and whoever is done closes; both are waited for,
// since a small VM fits into a socket's buffers and is sent before a byte of it was judged.
Result<> OutgoingSession::hand_over_unconfirmed() {
    if (mode_ != Mode::Live) return check_alive();
    if (may_hear_unasked()) MIG_CHECK(await_refusal());
    const std::lock_guard lock(mutex_);
    progress_.stage = Stage::HandedOver;
    return {};
}

Result<> OutgoingSession::await_refusal() {
    const util::ScopedSpan span(vm_.env.timeline, "vm", "confirm");
    MIG_TRY(reader_, ReturnPathReader::start(*channel_, *this));
    const auto deadline = vm_.env.clock.now() + kRefusalWait;
    std::unique_lock lock(mutex_);
    while (!progress_.rp_end && vm_.env.clock.now() < deadline) {
        vm_.env.clock.wait_until(changed_, lock, deadline);
    }
    // However else it ended: whoever has read the end of the stream may run the VM.
    if (progress_.shut.value_or(0) != 0) {
        progress_.stage = Stage::Sending;
        return make_error(ErrorKind::PeerFailed, "the destination failed: {}",
                          progress_.peer_reason.value_or("no reason given"));
    }
    vm_.env.log.log(util::LogLevel::Warning,
                    "migration: all was sent and the destination did not refuse it, but nobody "
                    "confirms that it runs the VM (capability return-path is off): look there "
                    "before this process ends");
    return {};
}

// The point of no return: whoever comes first under the lock, cancel or this, wins.
Result<> OutgoingSession::send_go() {
    {
        const std::lock_guard lock(mutex_);
        if (progress_.cancelled) return cancelled();
        progress_.stage = Stage::HandedOver;
    }
    trace::migration_handover(vm_.env.trace, "GO");
    save_command(*stream_, Command::Go);
    // A failing write leaves open whether the peer has it: await_shut() tells.
    if (auto sent = stream_->flush(); !sent) {
        trace::migration_handover(vm_.env.trace, sent.error().message());
    }
    return {};
}

Result<> OutgoingSession::await_shut(Error lost) {
    watch_->expect(PeerWatch::Expect::Bytes);
    std::unique_lock lock(mutex_);
    if (progress_.stage == Stage::Sending) progress_.stage = Stage::AllSent;
    while (!progress_.shut && !progress_.rp_end &&
           (!progress_.cancelled || progress_.stage == Stage::HandedOver)) {
        changed_.wait(lock);
    }
    watch_->expect(PeerWatch::Expect::Nothing);
    if (progress_.shut && *progress_.shut == 0) return {};
    if (progress_.shut) {
        std::string why = progress_.peer_reason.value_or("no reason given");
        if (progress_.stage == Stage::HandedOver) {
            return make_error(ErrorKind::PeerFailed,
                              "the VM was handed over, but the destination could not start it: {}. "
                              "It is stopped on both sides: resume one of them with 'cont'",
                              why);
        }
        return make_error(ErrorKind::PeerFailed, "the destination failed: {}", why);
    }
    if (!progress_.rp_end) return cancelled();
    if (!*progress_.rp_end) lost.attach_in_place(progress_.rp_end->error());
    return lost;
}

bool OutgoingSession::nobody_else_has_it() const {
    const std::lock_guard lock(mutex_);
    return progress_.stage == Stage::Sending;
}

Result<> OutgoingSession::take_back() {
    if (handed_over()) {
        // Not ours any more, whatever became of it.
        return await_on_loop(vm_.loop, [this](system::Done done) {
            done(vm_.runstate.set_state(RunState::PostMigrate));
        });
    }
    auto resumed = resume_vm();
    tell_that_the_vm_stays();
    return resumed;
}

// The destination may hold a complete VM: in words, so that it need not wonder. After the VM was
// resumed, since a destination that is still busy with a device may not read them at once.
void OutgoingSession::tell_that_the_vm_stays() {
    {
        const std::lock_guard lock(mutex_);
        if (progress_.stage != Stage::Offered || progress_.rp_end) return;
    }
    trace::migration_handover(vm_.env.trace, "ABORT");
    watch_->expect(PeerWatch::Expect::Taking);
    save_command(*stream_, Command::Abort);
    if (auto sent = stream_->flush(); !sent) {
        trace::migration_handover(vm_.env.trace, sent.error().message());
    }
    watch_->expect(PeerWatch::Expect::Nothing);
}

Result<> OutgoingSession::resume_vm() {
    if (vm_state_ == Vm::Untouched) return {};
    const util::ScopedSpan span(vm_.env.timeline, "vm", "take-back");
    vm_state_ = Vm::Untouched;
    return await_on_loop(vm_.loop, [this](system::Done done) {
        if (vm_.runstate.user_stopped_meanwhile()) former_state_ = RunState::Paused;
        if (!system::is_live(former_state_)) return done(vm_.runstate.set_state(former_state_));
        vm_.runstate.start([this, done = std::move(done)](Result<> started) mutable {
            if (!started) {
                // Stopped, but not lost: `cont` tries again.
                if (auto paused = vm_.runstate.set_state(RunState::Paused); !paused) {
                    started.error().attach_in_place(std::move(paused).error());
                }
                return done(std::move(started).error().context("resuming the VM"));
            }
            done({});
        });
    });
}

}  // namespace ferry::migration
