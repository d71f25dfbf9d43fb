// SPDX-License-Identifier: BSD-2-Clause
#include "migration/migration.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>

#include "migration/handed-fd.h"
#include "migration/incoming-channels.h"
#include "migration/incoming.h"
#include "migration/session.h"
#include "migration/source.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

using system::RunState;

namespace {

// Callbacks that come and go; loop thread.
template <typename... Args>
class ListenerList {
 public:
    using Listener = std::function<void(Args...)>;
    util::Registration add(Listener listener) {
        const uint64_t id = next_++;
        listeners_.emplace(id, std::move(listener));
        return util::Registration([this, id] { listeners_.erase(id); });
    }
    void call(Args... args) {
        const auto now = listeners_;  // a listener may come or go meanwhile
        for (const auto& [id, listener] : now) listener(args...);
    }

 private:
    std::map<uint64_t, Listener> listeners_;
    uint64_t next_ = 0;
};

bool can_connect_again(const MigrationAddress& address) {
    return std::holds_alternative<TcpAddress>(address) ||
           std::holds_alternative<UnixAddress>(address);
}

Result<> check_transport(const MigrationAddress& address, const Capabilities& capabilities) {
    if (!capabilities.has(Capability::Multifd) || can_connect_again(address)) return {};
    return make_error(ErrorKind::InvalidArgument,
                      "Migration requires multi-channel URIs (e.g. tcp)");
}

uint64_t to_ms(int64_t ns) {
    return ns <= 0 ? 0 : static_cast<uint64_t>(ns) / 1'000'000;
}

}  // namespace

struct Migration::Impl {
    explicit Impl(Deps d)
        : deps(std::move(d)),
          source_status(Role::Source, deps.env,
                        [this](MigrationStatus s) { status_changed(Role::Source, s); }),
          destination_status(Role::Destination, deps.env,
                             [this](MigrationStatus s) { status_changed(Role::Destination, s); }),
          source(context(source_status)),
          destination(context(destination_status)) {}

    SessionContext context(StatusMachine& status) {
        return {.loop = deps.loop,
                .env = deps.env,
                .runstate = deps.runstate,
                .memory = deps.memory,
                .registry = deps.registry,
                .device_state = deps.device_state,
                .identity = {deps.machine_name, deps.uuid},
                .global_state = global_state,
                .parameters =
                    [this] {
                        const std::lock_guard lock(mutex);
                        return parameters;
                    },
                .stream = stream,
                .status = status,
                .stats = stats,
                .ram = ram_stats};
    }

    // Any thread; listeners hear of it on the loop, in order.
    void status_changed(Role whose, MigrationStatus status) {
        deps.loop.post([this, whose, status] { status_listeners.call(whose, status); });
    }

    void set_error(std::optional<Error> error) {
        const std::lock_guard lock(mutex);
        error_desc.reset();
        if (error) error_desc = error->message();
    }

    void begin(Role new_role) {
        set_error({});
        const std::lock_guard lock(mutex);
        role = new_role;
    }

    Result<> may_begin_outgoing(SaveSession::Mode mode) const;
    Result<> start_outgoing(SaveSession::Mode mode, OutgoingSession::Opener opener,
                            system::Done opened, system::Done finished);
    void outgoing_finished(SaveSession::Mode mode, Result<> outcome, system::Done told);
    // An error is also the end of the attempt, by incoming_finished().
    Result<> accept(IncomingSet channels, IncomingSession::Mode mode, system::Done finished);
    // Loop thread: a connection for an incoming migration.
    void connected(std::unique_ptr<MigrationChannel> channel);
    void gather_channels();
    Result<> check_channels(size_t pages) const;
    void incoming_finished(IncomingSession::Mode mode, IncomingSession::Outcome outcome,
                           system::Done told);
    Result<> may_begin_incoming() const;
    Result<> begin_incoming(ExitOnError exit);
    void fail_incoming(Error error);
    void tell_event(MigrationEvent event);
    bool idle() const { return !outgoing && !incoming; }
    void check_shut_down() {
        if (shut_down_done && idle()) std::exchange(shut_down_done, nullptr)();
    }

    Deps deps;
    mutable std::mutex mutex;  // parameters, error_desc, role
    Parameters parameters;
    std::optional<std::string> error_desc;
    Role role = Role::Source;

    // shared by sessions, see session.h
    AttemptStats stats;
    RamStats ram_stats;
    GlobalState global_state;
    StreamOptions stream;
    StatusMachine source_status;
    StatusMachine destination_status;
    SessionContext source;
    SessionContext destination;

    // loop thread
    Capabilities capabilities;
    BlockerList blockers;
    ExitOnError exit_on_error = ExitOnError::No;
    std::function<void(const Error&)> exit_request;
    ListenerList<Role, MigrationStatus> status_listeners;
    ListenerList<uint64_t> pass_listeners;
    std::map<uint64_t, std::function<Result<>(MigrationEvent)>> event_listeners;
    uint64_t next_event_listener = 0;
    std::unique_ptr<SaveVMHandlers> ram;
    util::Registration ram_registration;
    util::Registration global_state_registration;
    std::optional<MigrationAddress> listening;  // guarded by mutex
    std::unique_ptr<ChannelListener> listener;
    std::unique_ptr<IncomingChannels> gathering;  // with multifd, until all channels are there
    std::unique_ptr<OutgoingSession> outgoing;
    std::unique_ptr<IncomingSession> incoming;
    std::function<void()> shut_down_done;
};

// --- outgoing

Result<> Migration::Impl::may_begin_outgoing(SaveSession::Mode mode) const {
    const auto in_progress =
        make_error(ErrorKind::InvalidState, "There's a migration process in progress");
    if (is_in_progress(source_status.get()) || outgoing) return in_progress;
    const RunState now = deps.runstate.state();
    if (now == RunState::InMigrate) {
        return make_error(ErrorKind::InvalidState, "Guest is waiting for an incoming migration");
    }
    // A snapshot is being loaded, or what is left of one that came in is put away.
    if (is_in_progress(destination_status.get()) || incoming) return in_progress;
    if (now == RunState::PostMigrate && mode == SaveSession::Mode::Live) {
        return make_error(ErrorKind::InvalidState,
                          "Can't migrate the vm that was paused due to previous migration");
    }
    return blockers.check();
}

Result<> Migration::Impl::start_outgoing(SaveSession::Mode mode, OutgoingSession::Opener opener,
                                         system::Done opened, system::Done finished) {
    MIG_CHECK(may_begin_outgoing(mode));
    begin(Role::Source);
    MIG_TRY(outgoing,
            OutgoingSession::start(
                source, capabilities, mode, std::move(opener),
                {.opened = std::move(opened),
                 .finished = [this, mode, told = std::move(finished)](Result<> outcome) mutable {
                     outgoing_finished(mode, std::move(outcome), std::move(told));
                 }}));
    blockers.set_busy(true);
    tell_event(MigrationEvent::Setup);
    return {};
}

void Migration::Impl::outgoing_finished(SaveSession::Mode mode, Result<> outcome,
                                        system::Done told) {
    blockers.set_busy(false);
    const bool handed_over = outgoing->handed_over();
    Result<> status;
    if (outcome) {
        status = source_status.advance(MigrationStatus::Completed);
        if (mode == SaveSession::Mode::Live && status) {
            status = deps.runstate.set_state(RunState::PostMigrate);
        }
    } else if (outcome.error().kind() == ErrorKind::Cancelled && !handed_over &&
               source_status.get() == MigrationStatus::Cancelling) {
        status = source_status.advance(MigrationStatus::Cancelled);
    } else {
        set_error(outcome.error());
        deps.env.log.log(util::LogLevel::Error, "migration failed: " + outcome.error().message());
        status = source_status.advance(MigrationStatus::Failed);
    }
    if (!status) {
        deps.env.log.log(util::LogLevel::Error, "end of migration: " + status.error().message());
    }
    outgoing.reset();
    tell_event(outcome ? MigrationEvent::Completed : MigrationEvent::Failed);
    if (told) told(std::move(outcome));
    check_shut_down();
}

void Migration::Impl::tell_event(MigrationEvent event) {
    const auto listeners = event_listeners;
    for (const auto& [id, tell] : listeners) {
        if (auto heard = tell(event); !heard) {
            deps.env.log.log(util::LogLevel::Error,
                             "migration notifier: " + heard.error().message());
        }
    }
}

// --- incoming

Result<> Migration::Impl::may_begin_incoming() const {
    if (listener || incoming || is_in_progress(destination_status.get())) {
        return make_error(ErrorKind::InvalidState,
                          "The incoming migration has already been started");
    }
    if (outgoing) {
        return make_error(ErrorKind::InvalidState, "There's a migration process in progress");
    }
    const RunState now = deps.runstate.state();
    // Coming back to where it left, and trying again with a VM that a person decided to give up.
    const bool again =
        now == RunState::PostMigrate ||
        (now == RunState::Paused && destination_status.get() == MigrationStatus::Failed);
    if (now != RunState::InMigrate && !again) {
        return make_error(ErrorKind::InvalidState,
                          "'-incoming' was not specified on the command line");
    }
    return {};
}

Result<> Migration::Impl::begin_incoming(ExitOnError exit) {
    MIG_CHECK(may_begin_incoming());
    MIG_CHECK(deps.runstate.set_state(RunState::InMigrate));
    exit_on_error = exit;
    begin(Role::Destination);
    return destination_status.advance(MigrationStatus::Setup);
}

void Migration::Impl::fail_incoming(Error error) {
    set_error(error);
    if (auto failed = destination_status.advance(MigrationStatus::Failed); !failed) {
        deps.env.log.log(util::LogLevel::Error, failed.error().message());
    }
    deps.env.log.log(util::LogLevel::Error, "incoming migration failed: " + error.message());
}

void Migration::Impl::connected(std::unique_ptr<MigrationChannel> channel) {
    if (incoming || destination_status.get() != MigrationStatus::Setup) {
        deps.env.log.log(util::LogLevel::Warning,
                         "extra incoming connection closed; if it was a page channel: the "
                         "capability multifd must be on at both sides");
        return;
    }
    if (gathering) return gathering->add(std::move(channel));
    (void)accept({.main = std::move(channel), .main_begin = {}, .pages = {}},
                 IncomingSession::Mode::Live, nullptr);
}

void Migration::Impl::gather_channels() {
    if (!capabilities.has(Capability::Multifd)) return;
    gathering = std::make_unique<IncomingChannels>(
        deps.loop, deps.env, parameters.multifd_channels,
        [this] { return destination.parameters().x_peer_timeout_ms; },
        [this](IncomingSet set) {
            const auto over = std::move(gathering);
            (void)accept(std::move(set), IncomingSession::Mode::Live, nullptr);
        });
}

Result<> Migration::Impl::check_channels(size_t pages) const {
    const size_t wanted =
        capabilities.has(Capability::Multifd) ? destination.parameters().multifd_channels : 0;
    if (pages == wanted) return {};
    return make_error(ErrorKind::InvalidArgument,
                      "{} page channels, but multifd and multifd-channels ask for {}", pages,
                      wanted);
}

Result<> Migration::Impl::accept(IncomingSet channels, IncomingSession::Mode mode,
                                 system::Done finished) {
    const auto end = [this, mode, told = std::make_shared<system::Done>(std::move(finished))](
                         IncomingSession::Outcome outcome) {
        incoming_finished(mode, std::move(outcome), std::move(*told));
    };
    auto session =
        IncomingSession::start(destination, capabilities, mode, std::move(channels), end);
    if (!session) {
        // Not at once: the listener may be among the callers.
        deps.loop.post([end, error = session.error()]() mutable { end({std::move(error)}); });
        return std::move(session).error();
    }
    incoming = std::move(*session);
    blockers.set_busy(true);
    return {};
}

void Migration::Impl::incoming_finished(IncomingSession::Mode mode,
                                        IncomingSession::Outcome outcome, system::Done told) {
    blockers.set_busy(false);
    listener.reset();
    gathering.reset();
    {
        const std::lock_guard lock(mutex);
        listening.reset();
    }
    incoming.reset();
    bool end_process = false;
    if (outcome.result) {
        if (auto done = destination_status.advance(MigrationStatus::Completed); !done) {
            deps.env.log.log(util::LogLevel::Error, done.error().message());
        }
    } else {
        fail_incoming(outcome.result.error());
        const RunState now = deps.runstate.state();
        const bool still_stopped = now == RunState::InMigrate || now == RunState::RestoreVm;
        // A complete VM is kept for a person to decide about; so is what a snapshot left behind.
        if (still_stopped && (outcome.ending == IncomingSession::Ending::Kept ||
                              mode == IncomingSession::Mode::Snapshot)) {
            if (auto paused = deps.runstate.set_state(RunState::Paused); !paused) {
                deps.env.log.log(util::LogLevel::Error, paused.error().message());
            }
        }
        end_process = mode == IncomingSession::Mode::Live && exit_on_error == ExitOnError::Yes &&
                      outcome.ending == IncomingSession::Ending::Discarded;
    }
    if (end_process && exit_request && !shut_down_done) exit_request(outcome.result.error());
    if (told) told(std::move(outcome.result));
    check_shut_down();
}

// --- Migration

Migration::Migration(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Migration::~Migration() = default;

Result<std::unique_ptr<Migration>> Migration::create(Deps deps) {
    auto impl = std::make_unique<Impl>(std::move(deps));
    Impl& m = *impl;
    m.ram =
        make_ram_handlers(m.deps.memory, m.deps.env, m.ram_stats, [raw = impl.get()](uint64_t n) {
            raw->deps.loop.post([raw, n] { raw->pass_listeners.call(n); });
        });
    MIG_TRY(m.ram_registration, m.deps.registry.add(*m.ram));
    MIG_TRY(m.global_state_registration,
            m.deps.registry.add_vmstate("", GlobalState::description(), &m.global_state));
    return std::unique_ptr<Migration>(new Migration(std::move(impl)));
}

void Migration::set_stream_options(StreamOptions options) {
    impl_->stream = options;
    impl_->global_state.set_sent(options.global_state == StreamOptions::Sent::Yes
                                     ? GlobalState::Sent::Always
                                     : GlobalState::Sent::WhenNeeded);
}

StreamOptions Migration::stream_options() const {
    return impl_->stream;
}

const Capabilities& Migration::capabilities() const {
    return impl_->capabilities;
}

Parameters Migration::parameters() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->parameters;
}

Result<> Migration::set_capabilities(std::span<const std::pair<Capability, bool>> changes) {
    if (in_progress()) {
        return make_error(ErrorKind::InvalidState, "There's a migration process in progress");
    }
    Capabilities wanted = impl_->capabilities;
    for (const auto& [capability, on] : changes) wanted.set(capability, on);
    MIG_CHECK(check_capabilities(wanted));
    if (impl_->listener && wanted.has(Capability::Multifd) &&
        !capabilities().has(Capability::Multifd)) {
        return make_error(ErrorKind::InvalidState, "Multifd must be set before incoming starts");
    }
    impl_->capabilities = wanted;
    return {};
}

Result<> Migration::set_parameters(const Parameters& wanted) {
    Parameters checked;
    for (const ParameterInfo& info : parameter_table()) {
        MIG_CHECK(set_parameter(checked, info.name, wanted.*info.value));
    }
    MIG_CHECK(check_parameters(checked));
    const std::lock_guard lock(impl_->mutex);
    impl_->parameters = checked;
    return {};
}

Result<> Migration::migrate(const MigrationAddress& address, FdTable& fds, system::Done opened) {
    // A descriptor leaves its table only when nothing else stands in the way.
    MIG_CHECK(impl_->may_begin_outgoing(SaveSession::Mode::Live));
    MIG_CHECK(check_transport(address, impl_->capabilities));
    auto handed = from_handed_fd(address, fds, FdUse::Outgoing);
    OutgoingSession::Opener opener = [address](const util::EventFd& cancel) {
        return connect_channel(address, cancel);
    };
    if (!handed) {
        // An attempt that fails like that of a file that can't be opened.
        opener = [error = std::move(handed).error()](
                     const util::EventFd&) -> Result<std::unique_ptr<MigrationChannel>> {
            return error;
        };
    } else if (*handed) {
        opener = [make = std::make_shared<MakeChannel>(std::move(*handed))](const util::EventFd&) {
            return (*make)();
        };
    }
    return impl_->start_outgoing(SaveSession::Mode::Live, std::move(opener), std::move(opened),
                                 nullptr);
}

namespace {
OutgoingSession::Opener ready_made(std::unique_ptr<MigrationChannel> channel,
                                   std::vector<std::unique_ptr<MigrationChannel>> pages) {
    auto left = std::make_shared<std::deque<std::unique_ptr<MigrationChannel>>>();
    left->push_back(std::move(channel));
    std::ranges::move(pages, std::back_inserter(*left));
    return [left](const util::EventFd&) -> Result<std::unique_ptr<MigrationChannel>> {
        auto next = std::move(left->front());
        left->pop_front();
        return next;
    };
}
}  // namespace

Result<> Migration::migrate(std::unique_ptr<MigrationChannel> channel,
                            std::vector<std::unique_ptr<MigrationChannel>> pages) {
    MIG_CHECK(impl_->check_channels(pages.size()));
    return impl_->start_outgoing(SaveSession::Mode::Live,
                                 ready_made(std::move(channel), std::move(pages)), nullptr,
                                 nullptr);
}

void Migration::migrate_cancel() {
    if (impl_->outgoing) impl_->outgoing->cancel();
}

Result<> Migration::migrate_continue(MigrationStatus state) {
    if (!impl_->outgoing) {
        return make_error(ErrorKind::InvalidState, "Migration not in expected state: {}",
                          to_string(impl_->source_status.get()));
    }
    return impl_->outgoing->continue_switchover(state);
}

Result<> Migration::migrate_incoming(const MigrationAddress& address, FdTable& fds,
                                     ExitOnError exit) {
    Impl& m = *impl_;
    MIG_CHECK(m.may_begin_incoming());
    MIG_CHECK(check_transport(address, m.capabilities));
    const bool listens = can_connect_again(address);
    if (!listens) {
        MIG_TRY(MakeChannel handed, from_handed_fd(address, fds, FdUse::Incoming));
        MIG_TRY(auto channel, handed ? handed() : open_incoming_channel(address));
        return migrate_incoming(std::move(channel), exit);
    }
    MIG_TRY(auto listener, ChannelListener::create(address, m.deps.loop,
                                                   [&m](std::unique_ptr<MigrationChannel> channel) {
                                                       m.connected(std::move(channel));
                                                   }));
    MIG_CHECK(m.begin_incoming(exit));
    m.gather_channels();
    m.listener = std::move(listener);
    const std::lock_guard lock(m.mutex);
    m.listening = m.listener->address();
    return {};
}

Result<> Migration::migrate_incoming(std::unique_ptr<MigrationChannel> channel, ExitOnError exit,
                                     std::vector<std::unique_ptr<MigrationChannel>> pages) {
    MIG_CHECK(impl_->check_channels(pages.size()));
    MIG_CHECK(impl_->begin_incoming(exit));
    return impl_->accept({.main = std::move(channel), .main_begin = {}, .pages = std::move(pages)},
                         IncomingSession::Mode::Live, nullptr);
}

Result<> Migration::save_snapshot(std::unique_ptr<MigrationChannel> channel, system::Done done) {
    return impl_->start_outgoing(SaveSession::Mode::Snapshot, ready_made(std::move(channel), {}),
                                 nullptr, std::move(done));
}

Result<> Migration::load_snapshot(std::unique_ptr<MigrationChannel> channel, system::Done done) {
    Impl& m = *impl_;
    if (m.listener || in_progress() || !m.idle()) {
        return make_error(ErrorKind::InvalidState, "There's a migration process in progress");
    }
    auto shared = std::make_shared<std::unique_ptr<MigrationChannel>>(std::move(channel));
    auto load = [&m, shared, done = std::move(done)](Result<> stopped) mutable {
        if (!stopped) return done(std::move(stopped).error().context("stopping the VM"));
        m.begin(Role::Destination);
        // Another attempt may have begun while the VM stopped.
        auto begun = m.destination_status.advance(MigrationStatus::Setup);
        if (begun) {
            (void)m.accept({.main = std::move(*shared), .main_begin = {}, .pages = {}},
                           IncomingSession::Mode::Snapshot, std::move(done));
            return;
        }
        if (auto paused = m.deps.runstate.set_state(RunState::Paused); !paused) {
            begun.error().attach_in_place(std::move(paused).error());
        }
        done(std::move(begun));
    };
    m.deps.runstate.stop(RunState::RestoreVm, std::move(load));
    return {};
}

bool Migration::in_progress() const {
    return is_in_progress(impl_->source_status.get()) ||
           (is_in_progress(impl_->destination_status.get()) && impl_->incoming != nullptr);
}

BlockerList& Migration::blockers() {
    return impl_->blockers;
}

util::Registration Migration::on_status(std::function<void(Role, MigrationStatus)> listener) {
    return impl_->status_listeners.add(std::move(listener));
}

util::Registration Migration::on_pass(std::function<void(uint64_t)> listener) {
    return impl_->pass_listeners.add(std::move(listener));
}

util::Registration Migration::on_event(std::function<Result<>(MigrationEvent)> listener) {
    const uint64_t id = impl_->next_event_listener++;
    impl_->event_listeners.emplace(id, std::move(listener));
    return util::Registration([m = impl_.get(), id] { m->event_listeners.erase(id); });
}

void Migration::set_exit_request(std::function<void(const Error&)> handler) {
    impl_->exit_request = std::move(handler);
}

void Migration::shut_down(std::function<void()> done) {
    impl_->listener.reset();
    impl_->gathering.reset();
    impl_->shut_down_done = std::move(done);
    if (impl_->outgoing) impl_->outgoing->cancel();
    if (impl_->incoming) {
        impl_->incoming->abort(make_error(ErrorKind::Cancelled, "the process is ending"));
    }
    impl_->check_shut_down();
}

MigrationInfo Migration::query() const {
    const Impl& m = *impl_;
    MigrationInfo info;
    {
        const std::lock_guard lock(m.mutex);
        info.role = m.role;
        info.error_desc = m.error_desc;
        info.listening = m.listening;
    }
    if (info.role == Role::Destination) {
        info.status = m.destination_status.get();
        return info;
    }
    info.status = m.source_status.get();
    switch (info.status) {
        case MigrationStatus::None:
        case MigrationStatus::Setup:
        case MigrationStatus::Cancelled:
        case MigrationStatus::Failed: return info;
        case MigrationStatus::Cancelling:
        case MigrationStatus::Active:
        case MigrationStatus::PreSwitchover:
        case MigrationStatus::Device:
        case MigrationStatus::Completed: break;
    }
    const bool completed = info.status == MigrationStatus::Completed;
    MigrationCounters out;
    const AttemptStats& stats = m.stats;
    out.transferred = stats.transferred_bytes;
    out.downtime_bytes = stats.downtime_bytes;
    out.multifd_bytes = stats.multifd_bytes;
    const uint64_t elsewhere = out.downtime_bytes + out.multifd_bytes;
    out.precopy_bytes = out.transferred - std::min(elsewhere, out.transferred);
    out.remaining = completed ? 0 : m.ram_stats.remaining_bytes.load();
    out.total = m.ram_stats.total_bytes;
    out.duplicate = m.ram_stats.zero_pages;
    out.normal = m.ram_stats.normal_pages;
    out.dirty_pages_rate = completed ? 0 : m.ram_stats.dirty_pages_per_second.load();
    out.dirty_sync_count = m.ram_stats.dirty_sync_count;
    out.pages_per_second = m.ram_stats.pages_per_second;
    const int64_t begin = stats.begin_ns;
    const int64_t end = stats.end_ns != 0 ? stats.end_ns.load() : m.deps.env.clock.now().count();
    out.total_time_ms = to_ms(end - begin);
    out.setup_time_ms = to_ms(stats.setup_end_ns - begin);
    constexpr double kBitsPerByte = 8;
    if (completed) {
        out.downtime_ms = to_ms(end - stats.pause_begin_ns);
        const auto seconds = static_cast<double>(end - begin) / 1e9;
        out.mbps =
            seconds > 0 ? static_cast<double>(out.transferred) * kBitsPerByte / seconds / 1e6 : 0;
    } else {
        out.expected_downtime_ms = stats.expected_downtime_ms;
        out.cpu_throttle_percentage = stats.cpu_throttle_percentage;
        out.mbps = static_cast<double>(stats.throughput_bytes_per_s) * kBitsPerByte / 1e6;
    }
    if (m.deps.device_state.in_play()) out.vfio_transferred = m.deps.device_state.bytes_sent();
    info.counters = out;
    return info;
}

}  // namespace ferry::migration
