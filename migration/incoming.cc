// SPDX-License-Identifier: BSD-2-Clause
#include "migration/incoming.h"

#include <condition_variable>

#include "trace-points.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::migration {

using system::RunState;

IncomingSession::IncomingSession(SessionContext& vm, Capabilities caps, Mode mode,
                                 IncomingSet channels, Finished finished)
    : vm_(vm),
      capabilities_(caps),
      compression_(static_cast<MultifdCompression>(vm.parameters().multifd_compression)),
      mode_(mode),
      finished_(std::move(finished)),
      channel_(std::move(channels.main)),
      channel_begin_(std::move(channels.main_begin)),
      page_channels_(std::move(channels.pages)),
      page_begin_bytes_(channels.pages_begin_bytes) {}

Result<std::unique_ptr<IncomingSession>> IncomingSession::start(SessionContext& vm,
                                                                Capabilities caps, Mode mode,
                                                                IncomingSet set,
                                                                Finished finished) {
    std::unique_ptr<IncomingSession> session(
        new IncomingSession(vm, caps, mode, std::move(set), std::move(finished)));
    vm.stats.reset();
    vm.stats.begin_ns = vm.env.clock.now().count();
    vm.env.timeline.clear();
    vm.global_state.forget();
    std::vector<MigrationChannel*> channels{session->channel_.get()};
    for (const auto& pages_channel : session->page_channels_) {
        channels.push_back(pages_channel.get());
    }
    session->watch_ =
        std::make_unique<PeerWatch>(vm.loop, vm.env, std::move(channels), "the source",
                                    [&vm] { return vm.parameters().x_peer_timeout_ms; });
    session->inbox_ = std::make_unique<StateInbox>(
        session->page_channels_.size(), [watch = session->watch_.get()](bool awaits) {
            watch->expect(awaits ? PeerWatch::Expect::Bytes : PeerWatch::Expect::Nothing);
        });
    MIG_CHECK(vm.status.advance(MigrationStatus::Active));
    auto thread = util::start_thread(
        "mig/dst/main", [raw = session.get()](const std::stop_token&) { raw->thread_main(); });
    if (!thread) return std::move(thread).error();
    session->thread_ = std::move(*thread);
    return session;
}

void IncomingSession::abort(Error reason) {
    inbox_->fail(reason);
    for (const auto& channel : page_channels_) channel->shutdown(reason);
    if (channel_) channel_->shutdown(std::move(reason));
}

void IncomingSession::thread_main() {
    Result<> result = run();
    trace::migration_thread_outcome(vm_.env.trace, result ? "success" : result.error().message());
    if (result) {
        ending_ = Ending::Loaded;
    } else if (owner_ != Owner::Source) {
        ending_ = Ending::Kept;
    }
    if (!result) {
        result = prefer_first_failure(std::move(result).error());
        inbox_->fail(result.error());
    }
    close_page_channels();  // whose threads use the handlers
    const auto outcome = ending_ == Ending::Discarded ? SaveVMHandlers::Outcome::Failed
                                                      : SaveVMHandlers::Outcome::Completed;
    for (size_t i = 0; i < set_up_; ++i) {
        if (auto* handlers = vm_.registry.entries()[i]->handlers) handlers->load_cleanup(outcome);
    }
    if (!result) {
        report_failure(result.error());
        if (owner_ == Owner::Us) {  // the source tells its own user
            result = std::move(result).error().context(
                "the VM was handed over to here, but does not start. It is stopped on both sides: "
                "resume one of them with 'cont'");
        }
        if (result.error().kind() == ErrorKind::PeerClosed && ending_ == Ending::Discarded) {
            result = std::move(result).error().context(
                "the source closed the connection before the VM was complete: it failed, was "
                "cancelled or has ended, look there for the reason");
        }
        result = std::move(result).error().context("destination");
    }
    if (writer_ && result) writer_->send_shut(0);
    close_return_path();
    vm_.stats.end_ns = vm_.env.clock.now().count();
    vm_.loop.post([this, result = std::move(result)]() mutable {
        if (thread_.joinable()) thread_.join();
        watch_.reset();
        auto finished = std::move(finished_);
        finished({std::move(result), ending_});  // destroys this
    });
}

// When a page channel or a device failed, the source may have closed the main channel because of
// it.
Error IncomingSession::prefer_first_failure(Error main) const {
    if (main.kind() != ErrorKind::PeerClosed) return main;
    auto first = inbox_->error();
    return first && first->kind() != ErrorKind::PeerClosed ? std::move(*first) : std::move(main);
}

void IncomingSession::close_page_channels() {
    for (const auto& channel : page_channels_) {
        channel->shutdown(
            make_error(ErrorKind::Cancelled, "the page channels are not needed any more"));
    }
    multifd_.reset();
}

// Sends what is queued. A source that does not read it has x-peer-timeout to think better of it.
void IncomingSession::close_return_path() {
    watch_->expect(PeerWatch::Expect::Movement);
    writer_.reset();
    watch_->expect(PeerWatch::Expect::Nothing);
}

// Unasked, too, where somebody sends a migration: a source of QEMU does not look, one of ours does
// and keeps its VM.
void IncomingSession::report_failure(const Error& error) {
    const bool unasked = !writer_ && mode_ == Mode::Live && owner_ == Owner::Source && headed_ &&
                         channel_->features().duplex && error.kind() != ErrorKind::PeerClosed;
    if (unasked) {
        if (auto writer = ReturnPathWriter::start(*channel_, vm_.env)) writer_ = std::move(*writer);
    }
    if (!writer_) return;
    if (agreed_.reason || unasked) {
        writer_->send_failure(failure_code(error.kind()), error.message());
    }
    writer_->send_shut(1);
}

Result<> IncomingSession::run() {
    MIG_CHECK(load());
    MIG_CHECK(validate());
    MIG_CHECK(wait_for_go());
    return start_vm();
}

Result<> IncomingSession::load() {
    const util::ScopedSpan span(vm_.env.timeline, "vm", "load");
    source_ = std::make_unique<WatchedSource>(*channel_, *watch_, std::move(channel_begin_));
    stream_ = std::make_unique<LoadStream>(*source_);
    if (!page_channels_.empty()) {
        MIG_TRY(multifd_, MultifdReceiver::start(page_channels_, page_begin_bytes_,
                                                 vm_.identity.uuid.value_or(Uuid{}), compression_,
                                                 *watch_, *inbox_));
    }
    MIG_TRY(refusal_, load_header(*stream_, vm_.identity));
    headed_ = true;
    if (capabilities_.has(Capability::SwitchoverAck)) {
        for (const auto& entry : vm_.registry.entries()) {
            if (entry->handlers != nullptr && entry->handlers->switchover_ack_needed()) {
                ++acks_missing_;
            }
        }
    }
    return load_elements(*stream_, vm_.registry, *this);
}

// After the return path was opened, so that the source learns why this VM or a device refuses.
Result<> IncomingSession::first_section() {
    if (refusal_) return std::move(*refusal_);
    for (const auto& entry : vm_.registry.entries()) {
        ++set_up_;
        if (entry->handlers == nullptr) continue;
        MIG_CHECK(entry->handlers->load_setup(*this), "section '{}': setup",
                  entry->section().idstr);
    }
    inbox_->set_up();
    return {};
}

Result<> IncomingSession::validate() {
    const util::ScopedSpan span(vm_.env.timeline, "vm", "validate");
    struct Waiting {
        std::mutex mutex;
        std::condition_variable changed;
        size_t outstanding = 0;
        std::optional<Error> error;
    };
    const auto waiting = std::make_shared<Waiting>();
    std::vector<SaveVMRegistry::Entry*> validators;
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->handlers != nullptr) validators.push_back(entry.get());
    }
    waiting->outstanding = validators.size();
    inbox_->expect_the_rest();
    for (SaveVMRegistry::Entry* entry : validators) {
        entry->handlers->load_validate([waiting, inbox = inbox_.get(),
                                        idstr = entry->section().idstr](Result<> result) mutable {
            const std::lock_guard lock(waiting->mutex);
            if (!result) {
                Error error = std::move(result).error().context("section '" + idstr + "'");
                inbox->fail(error);
                if (waiting->error) {
                    waiting->error->attach_in_place(std::move(error));
                } else {
                    waiting->error = std::move(error);
                }
            }
            --waiting->outstanding;
            waiting->changed.notify_all();
        });
    }
    std::unique_lock lock(waiting->mutex);
    waiting->changed.wait(lock, [&] { return waiting->outstanding == 0; });
    inbox_->expect_no_more();
    // What the others waited for in vain says less.
    if (auto failed = inbox_->error()) {
        return std::move(*failed).context("validating what was loaded");
    }
    if (waiting->error) return std::move(*waiting->error).context("validating what was loaded");
    return {};
}

Result<> IncomingSession::wait_for_go() {
    if (!writer_ || !agreed_.handover) {
        owner_ = Owner::Source;
        return {};
    }
    const util::ScopedSpan span(vm_.env.timeline, "vm", "wait-go");
    owner_ = Owner::InDoubt;
    trace::migration_handover(vm_.env.trace, "READY");
    writer_->send(ReturnMessage::Ready);
    const auto in_doubt = [](Error error) {
        return std::move(error).context(
            "the VM is complete here, but the source was lost before it handed it over. If the "
            "source is known to be dead, start the VM here with 'cont'; otherwise quit this "
            "process");
    };
    for (;;) {
        auto type = stream_->u8();
        if (!type) return in_doubt(std::move(type).error());
        auto raw = stream_->be16();
        if (!raw) return in_doubt(std::move(raw).error());
        auto length = stream_->be16();
        if (!length) return in_doubt(std::move(length).error());
        const bool is_command = *type == static_cast<uint8_t>(Element::Command);
        const auto command = static_cast<Command>(*raw);
        if (is_command && command == Command::Go && *length == 0) break;
        if (is_command && command == Command::Abort && *length == 0) {
            owner_ = Owner::Source;
            return make_error(ErrorKind::Cancelled, "the source keeps the VM");
        }
        if (is_command && command == Command::Ping && *length == 4) {
            auto value = stream_->be32();
            if (!value) return in_doubt(std::move(value).error());
            if (auto answered = writer_->send_pong(*value); !answered) {
                return in_doubt(std::move(answered).error());
            }
            continue;
        }
        return in_doubt(make_error(ErrorKind::Protocol,
                                   "element {:#x}, command {:#x} of {} bytes instead of GO", *type,
                                   *raw, *length));
    }
    trace::migration_handover(vm_.env.trace, "GO");
    owner_ = Owner::Us;
    return {};
}

Result<> IncomingSession::start_vm() {
    const util::ScopedSpan span(vm_.env.timeline, "vm", "start");
    // QEMU takes SHUT as the end and starts nothing afterwards; say it before the VM runs here.
    if (writer_ && !agreed_.handover && mode_ == Mode::Live) {
        owner_ = Owner::Us;
        writer_->send_shut(0);
        close_return_path();
    }
    return await_on_loop(vm_.loop, [this](system::Done done) {
        const RunState was = vm_.global_state.loaded();
        vm_.runstate.set_was_suspended(vm_.global_state.loaded_sleeps());
        if (!system::is_live(was)) {
            const bool sane = was == RunState::PreLaunch || was == RunState::Paused ||
                              was == RunState::Shutdown || was == RunState::PostMigrate;
            return done(vm_.runstate.set_state(sane ? was : RunState::Paused));
        }
        if (!vm_.runstate.autostart()) return done(vm_.runstate.set_state(RunState::Paused));
        vm_.runstate.start([this, done = std::move(done)](Result<> started) mutable {
            if (started) return done({});
            Error error = std::move(started).error().context("starting the VM");
            if (auto paused = vm_.runstate.set_state(RunState::Paused); !paused) {
                error.attach_in_place(std::move(paused).error());
            }
            done(std::move(error));
        });
    });
}

Result<> IncomingSession::open_return_path() {
    if (writer_) {
        vm_.env.log.log(util::LogLevel::Warning, "the source opened the return path twice");
        return {};
    }
    if (!channel_->features().duplex) {
        return make_error(ErrorKind::Protocol, "return path wanted on one-way channel {}",
                          channel_->name());
    }
    MIG_TRY(writer_, ReturnPathWriter::start(*channel_, vm_.env));
    const std::lock_guard lock(acks_mutex_);
    if (capabilities_.has(Capability::SwitchoverAck) && acks_missing_ == 0) {
        writer_->send(ReturnMessage::SwitchoverAck);
    }
    return {};
}

Result<> IncomingSession::ping(uint32_t value) {
    if (!writer_) return make_error(ErrorKind::Protocol, "PING without a return path");
    MIG_CHECK(writer_->send_pong(pong_for(value, kOurFeatures, agreed_)));
    if (agreed_.heartbeat) writer_->start_heartbeat();
    if (value != kKeepAlivePing) return {};
    // While the guest stands still: here a device that can't be loaded is noticed before the end.
    if (auto failed = inbox_->error()) return std::move(*failed).context("loading device state");
    return {};
}

Result<> IncomingSession::approve_switchover() {
    if (!capabilities_.has(Capability::SwitchoverAck)) {
        return make_error(ErrorKind::Protocol, "switchover approval without switchover-ack");
    }
    if (!writer_) {
        return make_error(ErrorKind::Protocol, "switchover approval without a return path");
    }
    const std::lock_guard lock(acks_mutex_);
    if (acks_missing_ == 0) {
        return make_error(ErrorKind::Protocol, "one switchover approval too many");
    }
    if (--acks_missing_ == 0) writer_->send(ReturnMessage::SwitchoverAck);
    return {};
}

bool IncomingSession::page_channels_take_state() const {
    return multifd_ != nullptr && vm_.stream.switchover_start == StreamOptions::Sent::Yes &&
           compression_ == MultifdCompression::None;
}

StateQueue& IncomingSession::state_queue(const SectionId& section, uint64_t limit,
                                         StateWriter::Via via) {
    return inbox_->add(section, limit,
                       agreed_.state_early ? StateKinds::All : StateKinds::DataAndConfig, via);
}

Result<> IncomingSession::switchover_start() {
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->handlers == nullptr) continue;
        MIG_CHECK(entry->handlers->switchover_start(), "section '{}': switchover",
                  entry->section().idstr);
    }
    return {};
}

}  // namespace ferry::migration
