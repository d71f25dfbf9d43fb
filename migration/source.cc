// SPDX-License-Identifier: BSD-2-Clause
#include "migration/source.h"

#include <algorithm>
#include <array>

#include "trace-points.h"
#include "util/thread.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

using system::RunState;

namespace {
constexpr util::Nanoseconds kKeepAlivePeriod = std::chrono::milliseconds(250);
// For the answer to the hello, before the VM is stopped without one.
constexpr util::Nanoseconds kHelloWait = std::chrono::seconds(1);

// The others name the side that failed, or nobody did.
bool is_our_own(const Error& error) {
    switch (error.kind()) {
        case ErrorKind::PeerClosed:
        case ErrorKind::PeerFailed:
        case ErrorKind::Cancelled: return false;
        default: return true;
    }
}

}  // namespace

Error OutgoingSession::cancelled() {
    return make_error(ErrorKind::Cancelled, "migration cancelled");
}

OutgoingSession::OutgoingSession(SessionContext& vm, Capabilities caps, Mode mode,
                                 util::EventFd cancel)
    : vm_(vm),
      capabilities_(caps),
      parameters_(vm.parameters()),
      identity_{vm.identity.machine_name,
                caps.has(Capability::ValidateUuid) ? vm.identity.uuid : std::nullopt},
      mode_(mode),
      cancel_event_(std::move(cancel)),
      rate_(vm.env.clock.now()),
      throughput_(vm.env.clock.now()) {}

Result<std::unique_ptr<OutgoingSession>> OutgoingSession::start(SessionContext& vm,
                                                                Capabilities caps, Mode mode,
                                                                Opener opener,
                                                                Callbacks callbacks) {
    MIG_TRY(util::EventFd cancel, util::EventFd::create());
    std::unique_ptr<OutgoingSession> session(
        new OutgoingSession(vm, caps, mode, std::move(cancel)));
    session->opener_ = std::move(opener);
    session->callbacks_ = std::move(callbacks);
    for (const auto& entry : vm.registry.entries()) {
        if (entry->handlers != nullptr) MIG_CHECK(entry->handlers->save_prepare(*session));
    }
    // Asked for nothing, to hear whether it can be done.
    if (caps.has(Capability::AutoConverge)) {
        MIG_CHECK(vm.runstate.set_throttle(0), "auto-converge");
    }
    vm.stats.reset();
    vm.stats.begin_ns = vm.env.clock.now().count();
    vm.stats.expected_downtime_ms = session->parameters_.downtime_limit_ms;
    vm.env.timeline.clear();
    vm.device_state.reset_bytes_sent();
    MIG_CHECK(vm.status.advance(MigrationStatus::Setup));
    session->open_watch_ =
        std::make_unique<OpenWatch>(vm.loop, vm.env, session->cancel_event_,
                                    [&vm] { return vm.parameters().x_peer_timeout_ms; });
    auto thread = util::start_thread(
        "mig/src/main", [raw = session.get()](const std::stop_token&) { raw->thread_main(); });
    if (!thread) {
        // The status must not stay in setup.
        if (auto failed = vm.status.advance(MigrationStatus::Failed); !failed) {
            thread.error().attach_in_place(std::move(failed).error());
        }
        return std::move(thread).error();
    }
    session->thread_ = std::move(*thread);
    return session;
}

// --- main loop's side

void OutgoingSession::cancel() {
    const std::lock_guard lock(mutex_);
    if (progress_.cancelled || given_away()) return;
    if (!vm_.status.advance(MigrationStatus::Cancelling)) return;  // it is just ending
    progress_.cancelled = true;
    changed_.notify_all();
    cancel_event_.signal();
    // A peer that may hold everything is told in words; see tell_that_the_vm_stays().
    if (progress_.stage == Stage::Offered) return;
    for (MigrationChannel* channel : shared_channels_) channel->shutdown(cancelled());
}

Result<> OutgoingSession::continue_switchover(MigrationStatus state) {
    const MigrationStatus now = vm_.status.get();
    if (state != now || now != MigrationStatus::PreSwitchover) {
        return make_error(ErrorKind::InvalidState, "Migration not in expected state: {}",
                          to_string(now));
    }
    const std::lock_guard lock(mutex_);
    progress_.continued = true;
    changed_.notify_all();
    return {};
}

bool OutgoingSession::handed_over() const {
    const std::lock_guard lock(mutex_);
    return given_away();
}

// --- the phases

void OutgoingSession::thread_main() {
    Result<> outcome = run();
    auto_converge_.reset();
    if (!outcome && device_state_) device_state_->abandon();
    if (!outcome && outcome.error().kind() == ErrorKind::PeerClosed) {
        Result<> resumed;
        if (nobody_else_has_it()) resumed = resume_vm();  // words may be long in coming
        outcome = hear_last_words(std::move(outcome).error());
        if (!resumed) outcome.error().attach_in_place(std::move(resumed).error());
    }
    if (!outcome && is_our_own(outcome.error()) && channel_) {
        outcome = std::move(outcome).error().context("source");
    }
    trace::migration_thread_outcome(vm_.env.trace, outcome ? "success" : outcome.error().message());
    if (!outcome || mode_ == Mode::Snapshot) {
        if (auto back = take_back(); !back) {
            if (outcome) {
                outcome = std::move(back);
            } else {
                outcome.error().attach_in_place(std::move(back).error());
            }
        }
    }
    if (vm_.stats.end_ns == 0) vm_.stats.end_ns = vm_.env.clock.now().count();
    publish_progress();
    const auto result =
        outcome ? SaveVMHandlers::Outcome::Completed : SaveVMHandlers::Outcome::Failed;
    if (!outcome) shut_channels(cancelled());
    if (device_state_) device_state_->stop();  // its threads use the handlers
    for (size_t i = 0; i < set_up_; ++i) {
        if (auto* handlers = vm_.registry.entries()[i]->handlers) handlers->save_cleanup(result);
    }
    // The loop thread owns the watch's timer, and nobody may shut a closed channel.
    vm_.loop.post([this, outcome = std::move(outcome)]() mutable {
        if (thread_.joinable()) thread_.join();
        shut_channels(cancelled());
        reader_.reset();   // its thread uses the watch
        multifd_.reset();  // it may have some of the device state
        device_state_.reset();
        watch_.reset();
        open_watch_.reset();
        {
            const std::lock_guard lock(mutex_);
            shared_channels_.clear();
            if (!outcome && progress_.cancelled && !given_away()) {
                outcome = outcome.error().kind() == ErrorKind::Cancelled
                              ? std::move(outcome)
                              : Result<>(cancelled().attach(std::move(outcome).error()));
            }
        }
        auto finished = std::move(callbacks_.finished);
        finished(std::move(outcome));  // destroys this
    });
}

// A peer that closed has usually said why, asked or not, but a failing write may be noticed before
// its words.
Error OutgoingSession::hear_last_words(Error closed) {
    if (!reader_ && may_hear_unasked()) {
        if (auto reader = ReturnPathReader::start(*channel_, *this)) reader_ = std::move(*reader);
    }
    if (!reader_) return std::move(closed).context("the destination was lost");
    // It may wait for more on the main channel when another one broke.
    (void)channel_->finish_writing();  // if this fails, it has gone
    watch_->expect(PeerWatch::Expect::Bytes);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return progress_.rp_end.has_value(); });
    if (given_away()) return closed;
    if (!progress_.peer_reason && !progress_.shut) {
        return std::move(closed).context("the destination was lost");
    }
    lock.unlock();
    auto alive = check_alive();
    return alive ? closed : std::move(alive).error().attach(std::move(closed));
}

Result<> OutgoingSession::run() {
    MIG_CHECK(open());
    if (mode_ == Mode::Snapshot) {
        MIG_CHECK(stop_vm());
        MIG_CHECK(setup());
        MIG_CHECK(iterate());
    } else {
        MIG_CHECK(setup());
        MIG_CHECK(iterate());
        MIG_CHECK(stop_vm());
        MIG_CHECK(wait_for_continue());
    }
    MIG_CHECK(complete());
    MIG_CHECK(hand_over());
    return {};
}

Result<> OutgoingSession::open_channels() {
    MIG_TRY(channel_, opener_(cancel_event_));
    if (mode_ != Mode::Live || !capabilities_.has(Capability::Multifd)) return {};
    while (page_channels_.size() < parameters_.multifd_channels) {
        MIG_TRY(auto channel, opener_(cancel_event_), "page channel {}", page_channels_.size());
        page_channels_.push_back(std::move(channel));
    }
    return {};
}

void OutgoingSession::shut_channels(const Error& reason) {
    if (channel_) channel_->shutdown(reason);
    for (const auto& channel : page_channels_) channel->shutdown(reason);
}

uint64_t OutgoingSession::transferred() const {
    return (stream_ ? stream_->position() : 0) + (multifd_ ? multifd_->sent().bytes : 0);
}

util::Nanoseconds OutgoingSession::writing() const {
    return sink_->writing() + (multifd_ ? multifd_->sent().writing : util::Nanoseconds{});
}

Result<> OutgoingSession::open() {
    Result<> outcome = open_channels();
    if (!outcome) {
        if (const uint64_t limit = open_watch_->expired_ms(); limit != 0) {
            outcome =
                make_error(ErrorKind::PeerFailed,
                           "no connection to the destination within {} ms (x-peer-timeout)", limit)
                    .attach(std::move(outcome).error());
        }
    }
    if (callbacks_.opened) {
        Result<> told;
        if (!outcome) told = outcome.error();
        vm_.loop.post([opened = std::move(callbacks_.opened), told = std::move(told)]() mutable {
            opened(std::move(told));
        });
    }
    MIG_CHECK(std::move(outcome));
    sink_ = std::make_unique<TimedSink>(*channel_, vm_.env.clock);
    stream_ = std::make_unique<SaveStream>(*sink_);
    std::vector<MigrationChannel*> channels{channel_.get()};
    for (const auto& channel : page_channels_) channels.push_back(channel.get());
    {
        const std::lock_guard lock(mutex_);
        if (progress_.cancelled) return cancelled();
        shared_channels_ = channels;
    }
    return system::run_on_loop(vm_.loop, [this, &channels]() -> Result<> {
        open_watch_.reset();
        watch_ = std::make_unique<PeerWatch>(vm_.loop, vm_.env, channels, "the destination",
                                             [this] { return vm_.parameters().x_peer_timeout_ms; });
        return {};
    });
}

Result<> OutgoingSession::open_return_path() {
    const bool wanted = capabilities_.has(Capability::ReturnPath) || vm_.device_state.in_play();
    if (mode_ == Mode::Snapshot || !wanted || !channel_->features().duplex) return {};
    MIG_TRY(reader_, ReturnPathReader::start(*channel_, *this));
    save_command(*stream_, Command::OpenReturnPath);
    save_ping(kFirstPing);
    save_ping(hello_ping(kOurFeatures));
    return stream_->flush();
}

Result<> OutgoingSession::setup() {
    util::ScopedSpan span(vm_.env.timeline, "vm", "setup");
    watch_->expect(PeerWatch::Expect::Movement);
    save_header(*stream_, identity_);
    MIG_CHECK(open_return_path());
    if (!page_channels_.empty()) {
        MIG_TRY(multifd_,
                MultifdSender::start(page_channels_, vm_.identity.uuid.value_or(Uuid{}),
                                     parameters_, vm_.env),
                "multifd and multifd-channels must be the same on both sides");
    }
    device_state_ = std::make_unique<StateSender>(multifd_.get(), vm_.env);
    for (const auto& entry : vm_.registry.entries()) {
        ++set_up_;
        if (entry->live_handlers() == nullptr) continue;
        SaveVMHandlers& handlers = *entry->handlers;
        MIG_CHECK(save_section(*stream_, *entry, SectionKind::Start,
                               [&](SaveStream& out) { return handlers.save_setup(*this, out); }),
                  "setup");
        MIG_CHECK(check_alive());
    }
    ask_whether_set_up();
    MIG_CHECK(stream_->flush());
    span.add_bytes(stream_->position());
    vm_.stats.setup_end_ns = vm_.env.clock.now().count();
    return vm_.status.advance(MigrationStatus::Active);
}

// A destination may take long to prepare its devices. One of ours answers when it is through with
// that; others are not waited for.
void OutgoingSession::ask_whether_set_up() {
    const std::lock_guard lock(mutex_);
    const bool ours = progress_.features && progress_.features->handover;
    if (!reader_ || !ours || !vm_.device_state.in_play()) return;
    progress_.peer_set_up = Progress::SetUp::Asked;
    save_ping(kSetupPing);
}

void OutgoingSession::save_ping(uint32_t value) {
    std::array<std::byte, 4> raw{};
    util::store_be32(raw.data(), value);
    save_command(*stream_, Command::Ping, raw);
}

// A limit that somebody chose says what the line is for, as QEMU sees it. The default one only
// keeps pre-copy from taking a fast line for itself.
uint64_t OutgoingSession::switchover_bandwidth() const {
    const Parameters now = vm_.parameters();
    if (now.avail_switchover_bandwidth_bytes_per_s != 0) {
        return now.avail_switchover_bandwidth_bytes_per_s;
    }
    const uint64_t chosen = now.max_bandwidth_bytes_per_s;
    const bool limits = chosen != 0 && chosen != Parameters().max_bandwidth_bytes_per_s;
    return limits ? std::min(chosen, rate_.bandwidth()) : rate_.bandwidth();
}

uint64_t OutgoingSession::threshold() const {
    return switchover_threshold(switchover_bandwidth(), vm_.parameters().downtime_limit_ms);
}

Result<uint64_t> OutgoingSession::pending() {
    const auto sum = [this](auto ask) -> Result<uint64_t> {
        uint64_t total = 0;
        for (const auto& entry : vm_.registry.entries()) {
            if (entry->live_handlers() == nullptr) continue;
            MIG_TRY(const uint64_t bytes, ask(*entry->handlers), "{}", entry->section().idstr);
            if (__builtin_add_overflow(total, bytes, &total)) total = UINT64_MAX;
        }
        return total;
    };
    const uint64_t limit = threshold();
    MIG_TRY(uint64_t total,
            sum([](SaveVMHandlers& h) -> Result<uint64_t> { return h.state_pending_estimate(); }));
    if (total <= limit) {
        MIG_TRY(total, sum([](SaveVMHandlers& h) { return h.state_pending_exact(); }));
    }
    // Of a VM that writes nothing, what is left says nothing about the pause.
    const uint64_t bandwidth = switchover_bandwidth();
    if (bandwidth != 0 && vm_.ram.dirty_pages_per_second != 0) {
        vm_.stats.expected_downtime_ms = total / (bandwidth / 1000 + 1);
    }
    return total;
}

bool OutgoingSession::may_switch_over() const {
    if (!reader_) return true;
    if (!system::is_live(vm_.runstate.state())) return true;
    const std::lock_guard lock(mutex_);
    return progress_.acked || !capabilities_.has(Capability::SwitchoverAck);
}

Result<> OutgoingSession::iterate() {
    // What is written before goes as fast as the destination prepares, which says nothing about the
    // line; and the guest need not stand still for it.
    MIG_CHECK(wait_for([this] { return progress_.peer_set_up != Progress::SetUp::Asked; },
                       PeerWatch::Expect::Bytes),
              "waiting for the destination to prepare");
    util::ScopedSpan span(vm_.env.timeline, "vm", "pre-copy");
    if (mode_ == Mode::Live && capabilities_.has(Capability::AutoConverge)) {
        auto_converge_.emplace(vm_).begin(transferred());
    }
    for (;;) {
        MIG_CHECK(check_alive());
        if (mode_ == Mode::Live) {
            MIG_TRY(const uint64_t left, pending());
            if (auto_converge_) MIG_CHECK(auto_converge_->update(transferred()));
            if (left <= threshold() && may_switch_over()) return {};
            publish_progress();
            if (rate_.window_is_full(vm_.env.clock.now(), transferred(),
                                     vm_.parameters().max_bandwidth_bytes_per_s)) {
                keep_alive();  // at a low limit there is nothing else for long
                pause_until(rate_.window_end());
                continue;
            }
        }
        const uint64_t before = transferred();
        MIG_CHECK(send_round());
        const uint64_t moved = transferred() - before;
        span.add_bytes(moved);
        // An empty PART per handler is all that was sent.
        const bool idle = moved < 64 * vm_.registry.entries().size();
        if (mode_ == Mode::Snapshot) {
            if (idle) return {};
            continue;
        }
        if (idle) pause_until(vm_.env.clock.now() + RateControl::kWindow / 10);
    }
}

void OutgoingSession::pause_until(util::Nanoseconds deadline) {
    watch_->expect(PeerWatch::Expect::Nothing);
    std::unique_lock lock(mutex_);
    if (!progress_.cancelled && !progress_.rp_end) {
        vm_.env.clock.wait_until(changed_, lock, deadline);
    }
}

Result<> OutgoingSession::send_round() {
    watch_->expect(PeerWatch::Expect::Movement);
    rate_.begin_round(vm_.env.clock.now(), writing(), transferred());
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->live_handlers() == nullptr || !entry->handlers->is_active_iterate()) continue;
        SaveVMHandlers& handlers = *entry->handlers;
        MIG_CHECK(save_section(*stream_, *entry, SectionKind::Part,
                               [&](SaveStream& out) -> Result<> {
                                   MIG_CHECK(handlers.save_live_iterate(out));
                                   return {};
                               }),
                  "pre-copy");
        MIG_CHECK(check_alive());
    }
    MIG_CHECK(stream_->flush());
    rate_.end_round(writing(), transferred());
    publish_progress();
    return {};
}

void OutgoingSession::publish_progress() {
    if (multifd_) vm_.stats.multifd_bytes = multifd_->sent().bytes;
    vm_.stats.transferred_bytes = transferred();
    vm_.stats.throughput_bytes_per_s = throughput_.measure(vm_.env.clock.now(), transferred());
}

bool OutgoingSession::round_is_full() const {
    if (mode_ == Mode::Snapshot) return false;
    return rate_.round_is_full(vm_.env.clock.now(), transferred(),
                               vm_.parameters().max_bandwidth_bytes_per_s);
}

Result<> OutgoingSession::stop_vm() {
    if (reader_) MIG_CHECK(await_hello());
    const util::ScopedSpan span(vm_.env.timeline, "vm", "stop");
    watch_->expect(PeerWatch::Expect::Nothing);
    vm_.stats.pause_begin_ns = vm_.env.clock.now().count();
    const RunState to = mode_ == Mode::Snapshot ? RunState::SaveVm : RunState::FinishMigrate;
    auto stopped = std::make_shared<Answer>();
    vm_.loop.post([this, to, stopped] {
        former_state_ = vm_.runstate.state();
        vm_.global_state.store(former_state_, vm_.runstate.was_suspended());
        vm_.runstate.stop(to, [stopped](Result<> result) { stopped->give(std::move(result)); });
    });
    // Cancelling does not end this wait: whatever the devices do must be known before it can be
    // undone.
    MIG_CHECK(stopped->wait(vm_.env.clock, kKeepAlivePeriod, [this] { keep_alive(); }),
              "stopping the VM");
    vm_state_ = Vm::Stopped;
    return check_alive();
}

Result<> OutgoingSession::wait_for_continue() {
    if (capabilities_.has(Capability::PauseBeforeSwitchover)) {
        const util::ScopedSpan span(vm_.env.timeline, "vm", "pre-switchover");
        MIG_CHECK(vm_.status.advance(MigrationStatus::PreSwitchover));
        MIG_CHECK(wait_for([this] { return progress_.continued; }, PeerWatch::Expect::Nothing));
    }
    return vm_.status.advance(MigrationStatus::Device);
}

Result<> OutgoingSession::complete() {
    util::ScopedSpan span(vm_.env.timeline, "vm", "save");
    if (mode_ == Mode::Snapshot) MIG_CHECK(vm_.status.advance(MigrationStatus::Device));
    watch_->expect(PeerWatch::Expect::Movement);
    const uint64_t begin = transferred();
    const uint64_t main_begin = stream_->position();
    if (vm_.stream.switchover_start == StreamOptions::Sent::Yes) {
        save_command(*stream_, Command::SwitchoverStart);
        // A destination may load nothing that overtakes it on other channels.
        MIG_CHECK(stream_->flush());
    }
    MIG_CHECK(save_ends(), "switchover");
    MIG_TRY(const std::string description, save_one_shot_states(*stream_, vm_.registry, identity_),
            "switchover");
    MIG_CHECK(device_state_->finish([this] { return go_on_waiting(); }), "switchover");
    watch_->expect(PeerWatch::Expect::Movement);
    MIG_CHECK(send_end(description));
    vm_.stats.downtime_bytes = stream_->position() - main_begin;
    span.add_bytes(transferred() - begin);
    publish_progress();
    return {};
}

// All devices are read at once, and RAM goes out meanwhile. What of them goes by main channel goes
// device by device, unless the destination can load them at once, too.
Result<> OutgoingSession::save_ends() {
    const auto has_state = [](const SaveVMRegistry::Entry& entry) {
        return entry.handlers->device_state() != nullptr;
    };
    device_state_->begin();
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->live_handlers() == nullptr || has_state(*entry)) continue;
        MIG_CHECK(save_section(*stream_, *entry, SectionKind::End, [&](SaveStream& out) {
            return entry->handlers->save_live_complete_precopy(out);
        }));
        MIG_CHECK(check_alive());
    }
    const auto each_period = [this] { return check_alive(); };
    PeerFeatures features;
    if (vm_.device_state.in_play()) {
        MIG_TRY(features, peer_features());
    }
    if (features.state_parts) {
        MIG_CHECK(device_state_->forward(*stream_, [this] { return go_on_waiting(); }));
        watch_->expect(PeerWatch::Expect::Movement);
    }
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->live_handlers() == nullptr || !has_state(*entry)) continue;
        MIG_CHECK(
            save_section(*stream_, *entry, SectionKind::End, [&](SaveStream& out) -> Result<> {
                MIG_CHECK(device_state_->forward_device(*entry, out, each_period));
                return entry->handlers->save_live_complete_precopy(out);
            }));
        MIG_CHECK(check_alive());
    }
    return {};
}

// Our own devices may take their time, so silence is nothing bad as long as no byte of theirs is on
// its way. One of ours has to be told that we live, and says so itself.
Result<> OutgoingSession::go_on_waiting() {
    const bool beats = [this] {
        const std::lock_guard lock(mutex_);
        return progress_.features && progress_.features->heartbeat;
    }();
    if (beats) keep_alive();
    const bool idle = multifd_ == nullptr || multifd_->idle();
    watch_->expect(idle ? PeerWatch::Expect::Nothing : PeerWatch::Expect::Movement);
    return check_alive();
}

bool OutgoingSession::page_channels_take_state() const {
    return multifd_ != nullptr && vm_.stream.switchover_start == StreamOptions::Sent::Yes &&
           parameters_.multifd_compression == static_cast<uint64_t>(MultifdCompression::None);
}

Result<StateWriter*> OutgoingSession::state_writer(SaveVMHandlers& handlers, size_t bytes,
                                                   StateWriter::Via via) {
    for (const auto& entry : vm_.registry.entries()) {
        if (entry->handlers != &handlers) continue;
        return device_state_->add(*entry, *handlers.device_state(), bytes, via);
    }
    return make_error(ErrorKind::Internal, "state of a handler that is not registered");
}

// --- waiting

Result<> OutgoingSession::check_alive() {
    const std::lock_guard lock(mutex_);
    if (progress_.cancelled && !given_away()) return cancelled();
    if (!progress_.rp_end) return {};
    if (progress_.peer_reason) {
        return make_error(ErrorKind::PeerFailed, "the destination failed: {}",
                          *progress_.peer_reason);
    }
    if (progress_.shut) {
        return *progress_.shut == 0
                   ? make_error(ErrorKind::Protocol, "the destination said it was done too early")
                   : make_error(ErrorKind::PeerFailed, "the destination failed, without a reason");
    }
    if (*progress_.rp_end) return make_error(ErrorKind::Internal, "return path ended");
    return progress_.rp_end->error();
}

Result<> OutgoingSession::wait_for(const std::function<bool()>& ready, PeerWatch::Expect expect) {
    std::unique_lock lock(mutex_);
    if (ready()) return {};
    const PeerWatch::Expect former = watch_->expect(expect);
    while (!ready()) {
        if (progress_.cancelled || progress_.rp_end) {
            lock.unlock();
            return check_alive();
        }
        if (expect == PeerWatch::Expect::Bytes) {
            changed_.wait(lock);
            continue;
        }
        // The peer has to wait for us.
        const auto deadline = vm_.env.clock.now() + kKeepAlivePeriod;
        vm_.env.clock.wait_until(changed_, lock, deadline);
        lock.unlock();
        keep_alive();
        lock.lock();
    }
    watch_->expect(former);
    return {};
}

void OutgoingSession::keep_alive() {
    const auto now = vm_.env.clock.now();
    if (!reader_ || now - last_keep_alive_ < kKeepAlivePeriod) return;
    last_keep_alive_ = now;
    {
        const std::lock_guard lock(mutex_);
        if (progress_.cancelled || progress_.rp_end) return;
    }
    save_ping(kKeepAlivePing);
    // An error stays in the stream; the next phase's flush returns it.
    if (auto sent = stream_->flush(); !sent) {
        trace::migration_keep_alive_failed(vm_.env.trace, sent.error().message());
    }
}

// The records of a VFIO device depend on it; without one a peer that never answers a PING may still
// be a good destination.
Result<> OutgoingSession::await_hello() {
    if (vm_.device_state.in_play()) {
        MIG_CHECK(peer_features());
        return {};
    }
    const auto deadline = vm_.env.clock.now() + kHelloWait;
    while (vm_.env.clock.now() < deadline) {
        {
            const std::lock_guard lock(mutex_);
            if (progress_.features || progress_.cancelled || progress_.rp_end) break;
        }
        pause_until(deadline);
    }
    return check_alive();
}

// What all depends on once everything is sent. A peer without the hello runs the VM and says SHUT.
Result<PeerFeatures> OutgoingSession::await_features_or_shut() {
    watch_->expect(PeerWatch::Expect::Bytes);
    std::unique_lock lock(mutex_);
    if (!progress_.features && progress_.stage == Stage::Sending) {
        progress_.stage = Stage::AllSent;
    }
    changed_.wait(lock, [this] {
        return progress_.features || progress_.shut || progress_.rp_end || progress_.cancelled;
    });
    return progress_.features.value_or(PeerFeatures{});
}

Result<PeerFeatures> OutgoingSession::peer_features() {
    if (!reader_) return PeerFeatures{};
    // Bytes: it has been asked at the beginning of the stream, and our own PINGs are movement, too.
    MIG_CHECK(wait_for([this] { return progress_.features.has_value(); }, PeerWatch::Expect::Bytes),
              "waiting for the destination's answer to the hello");
    const std::lock_guard lock(mutex_);
    return *progress_.features;
}

// --- return path, reader's thread

void OutgoingSession::rp_pong(uint32_t value) {
    if (value == kSetupPing) {
        const std::lock_guard lock(mutex_);
        progress_.peer_set_up = Progress::SetUp::Yes;
        changed_.notify_all();
        return;
    }
    const auto features = features_in_pong(value);
    if (!features) return;
    const std::lock_guard lock(mutex_);
    if (!progress_.features) {
        // Only what was offered can have been agreed on.
        progress_.features = features->common_with(kOurFeatures);
        if (progress_.features->heartbeat) watch_->expect_heartbeats();
    }
    changed_.notify_all();
}

void OutgoingSession::rp_switchover_ack() {
    const std::lock_guard lock(mutex_);
    progress_.acked = true;
    changed_.notify_all();
}

void OutgoingSession::rp_ready() {
    const std::lock_guard lock(mutex_);
    progress_.ready = true;
    changed_.notify_all();
}

void OutgoingSession::rp_failure(uint32_t code, std::string reason) {
    trace::migration_peer_failure(vm_.env.trace, code, reason);
    const std::lock_guard lock(mutex_);
    if (!progress_.peer_reason) progress_.peer_reason = std::move(reason);
}

void OutgoingSession::rp_shut(uint32_t status) {
    const std::lock_guard lock(mutex_);
    progress_.shut = status;
    // A destination that needs no GO runs the VM now, even if a cancel is on its way.
    if (status == 0 && progress_.stage == Stage::AllSent) progress_.stage = Stage::HandedOver;
}

void OutgoingSession::rp_ended(Result<> how) {
    std::unique_lock lock(mutex_);
    const bool expected = how && progress_.shut && *progress_.shut == 0;
    progress_.rp_end = std::move(how);
    changed_.notify_all();
    lock.unlock();
    if (!expected) {
        // Whoever is blocked in a write to this peer need not wait for its socket to fill up.
        auto alive = check_alive();
        shut_channels(alive ? make_error(ErrorKind::PeerClosed, "the destination has gone")
                            : std::move(alive).error());
    }
}

}  // namespace ferry::migration
