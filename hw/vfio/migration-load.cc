// SPDX-License-Identifier: BSD-2-Clause
// The destination's half: writes the received image into the device. Up to the switchover the load
// thread does, from there on the device's loader, as it does from the beginning with what comes on
// page channels. The stream comes from an
// untrusted peer; what the image means is judged by the device's driver, in RESUMING -> STOP.
#include <algorithm>
#include <cerrno>
#include <future>
#include <optional>
#include <utility>

#include "hw/vfio/migration.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

using migration::Capability;
using migration::LoadSession;
using migration::LoadStream;
using migration::SectionKind;
using migration::StatePacketKind;
using migration::StateWriter;

namespace {
// How much of the stream is handed to the driver at once.
constexpr size_t kMaxChunk = size_t{1024} * 1024;

template <typename... Args>
Error bad_stream(fmt::format_string<Args...> text, Args&&... args) {
    return Error(ErrorKind::Protocol, fmt::format(text, std::forward<Args>(args)...), EINVAL);
}
}  // namespace

Result<> VfioMigration::load_setup(LoadSession& session) {
    trace::vfio_load_setup(env_.trace, label_);
    loading_ = Loading{};
    loading_.attempt = &session;
    status_->loaded_bytes.store(0, std::memory_order_relaxed);
    MIG_TRY(loading_.via, choose_channel(session.page_channels_take_state()));
    // All devices at once: nobody waits for it before its first section comes.
    const auto entered = std::make_shared<std::promise<Result<>>>();
    loading_.entered = entered->get_future().share();
    worker_.post([this, entered] {
        auto result = enter_resuming();
        if (result) loading_.session = state_.session().number;
        entered->set_value(std::move(result));
    });
    loading_.queue =
        &session.state_queue(section_, setup_.properties.max_queued_buffers_size, loading_.via);
    MIG_TRY(loading_.loader,
            StateLoader::start("mig/dst/load", *loading_.queue,
                               [this](const auto& packet) { return load_packet(packet); }),
            "device {}", label_);
    // Nothing of it comes on the main channel that would have to be there first.
    const bool early = session.peer_features().state_early;
    if (early && loading_.via == StateWriter::Via::PageChannels) open_queue();
    return {};
}

Result<> VfioMigration::enter_resuming() {
    MIG_CHECK(state_.check_usable());
    if (state_.vm() == VmActivity::Running) {
        return make_error(ErrorKind::InvalidState, "device {}: the VM runs, it can't be loaded",
                          label_);
    }
    // Left over from an attempt whose end could not be cleaned up.
    if (session_of(state_.state()) != SessionKind::None) {
        MIG_CHECK(state_.reset("a migration begins"));
    }
    return state_.set_state(MigState::Resuming, "migration");
}

Result<> VfioMigration::load_state(LoadStream& in, SectionKind kind, uint32_t /*version*/) {
    loading_.named = true;
    if (kind == SectionKind::End) begin_span();
    for (;;) {
        MIG_TRY(const uint64_t tag, in.be64(), "device {}: reading its state", label_);
        trace::vfio_load_state(env_.trace, label_, tag);
        switch (tag) {
            case record::kEndOfState: return kind == SectionKind::End ? end_image() : Result<>();
            case record::kSetupState:
                MIG_CHECK(loading_.entered.get());
                return end_of_state_follows(in, "the setup record");
            case record::kDataState: MIG_CHECK(load_data(in)); break;
            case record::kConfigState: return load_config(in);
            case record::kConfigLoadReady: return load_config_load_ready();
            case record::kInitDataSent:
                MIG_CHECK(check_channel("the end of its initial data comes"));
                return load_init_data_sent();
            case record::kDiscard: MIG_CHECK(load_discard()); break;
            case record::kConfigSize: MIG_CHECK(load_config_size(in)); break;
            default: return bad_stream("device {}: unknown record {:#x}", label_, tag);
        }
    }
}

Result<> VfioMigration::end_of_state_follows(LoadStream& in, std::string_view after) {
    MIG_TRY(const uint64_t tag, in.be64(), "device {}: reading its state", label_);
    if (tag == record::kEndOfState) return {};
    return bad_stream("device {}: {:#x} instead of the end of {}", label_, tag, after);
}

Result<> VfioMigration::load_data(LoadStream& in) {
    MIG_TRY(uint64_t left, in.be64(), "device {}: reading its state", label_);
    trace::vfio_load_state_device_data(env_.trace, label_, left);
    if (left == 0) return {};
    if (loading_.queue_open) return queue_data(in, left);
    MIG_TRY(const auto stream, open_stream());
    while (left > 0) {
        MIG_TRY(const ConstBytes bytes, in.chunk(std::min<uint64_t>(left, kMaxChunk)),
                "device {}: receiving its state, {} bytes of a block are missing", label_, left);
        MIG_CHECK(write_all(*stream, bytes));
        left -= bytes.size();
    }
    return {};
}

// To be loaded while the next section is read.
Result<> VfioMigration::queue_data(LoadStream& in, uint64_t bytes) {
    MIG_CHECK(check_channel("its state comes"));
    while (bytes > 0) {
        const auto part = static_cast<size_t>(std::min<uint64_t>(bytes, kMaxChunk));
        MIG_CHECK(loading_.queue->read(in, part),
                  "device {}: receiving its state, {} bytes of a block are missing", label_, bytes);
        bytes -= part;
    }
    return {};
}

// Of the main channel's image; the one on page channels ends by its last packet.
Result<> VfioMigration::end_image() {
    if (loading_.via == StateWriter::Via::PageChannels) return {};
    loading_.queue->finish();
    // Without a switchover there was nothing for it to do. Else its errors belong here.
    if (!loading_.queue_open) open_queue();
    if (!loading_.attempt->peer_features().state_parts) MIG_CHECK(loading_.loader->wait());
    loading_.image_complete = true;
    return {};
}

Result<> VfioMigration::load_packet(const StateLoader::Packet& packet) {
    switch (packet.kind) {
        case StatePacketKind::Data: {
            trace::vfio_load_state_device_data(env_.trace, label_, packet.data.size());
            MIG_TRY(const auto stream, open_stream());
            return write_all(*stream, packet.data);
        }
        case StatePacketKind::InitialDone: return load_init_data_sent();
        case StatePacketKind::Discard: return begin_anew();
        case StatePacketKind::Config: break;
    }
    migration::MemorySource source(packet.data);
    LoadStream in(source, LoadStream::kMaxPeek);
    MIG_TRY(const uint64_t tag, in.be64(), "device {}: its configuration", label_);
    if (tag != record::kConfigState) {
        return bad_stream("device {}: {:#x} instead of its configuration", label_, tag);
    }
    MIG_CHECK(read_config(in));
    loading_.image_complete = true;
    return {};
}

Result<> VfioMigration::load_config_load_ready() {
    const bool awaited = loading_.via == StateWriter::Via::PageChannels &&
                         setup_.properties.load_config_after_iter == OnOffAuto::On;
    if (!awaited || std::exchange(loading_.config_load_ready, true)) {
        return bad_stream(
            "device {}: leave to load its configuration, which was not awaited; "
            "x-migration-multifd-transfer and x-migration-load-config-after-iter must be the same "
            "on both sides",
            label_);
    }
    return {};
}

Result<std::shared_ptr<MigDataStream>> VfioMigration::open_stream() const {
    MIG_CHECK(loading_.entered.get());
    const MigSession session = state_.session();
    if (session.stream && session.number == loading_.session &&
        state_.state() == MigState::Resuming) {
        return session.stream;
    }
    return make_error(ErrorKind::InvalidState, "device {}: it can't take its state any more: {}",
                      label_, state_.why_session_ended());
}

Result<> VfioMigration::write_all(MigDataStream& stream, ConstBytes bytes) {
    while (!bytes.empty()) {
        auto written = stream.write_some(bytes);
        if (written && (*written == 0 || *written > bytes.size())) {
            written =
                make_errno(EIO, "the driver says it took {} of {} bytes", *written, bytes.size());
        }
        if (!written) {
            return std::move(written).error().context(
                fmt::format("device {}: writing its state, after {} bytes", label_,
                            status_->loaded_bytes.load(std::memory_order_relaxed)));
        }
        status_->loaded_bytes.fetch_add(*written, std::memory_order_relaxed);
        bytes = bytes.subspan(*written);
    }
    return {};
}

Result<> VfioMigration::load_config(LoadStream& in) {
    if (loading_.via == StateWriter::Via::PageChannels) {
        return channel_error("its configuration comes");
    }
    return read_config(in);
}

// It takes effect with validate(), of all devices at once.
Result<> VfioMigration::read_config(LoadStream& in) {
    const util::ScopedSpan span(env_.timeline, label_, "config");
    trace::vfio_load_device_config_state_start(env_.trace, label_);
    if (setup_.config != nullptr) {
        MIG_CHECK(setup_.config->read_config(in), "device {}: loading its configuration", label_);
    }
    MIG_CHECK(end_of_state_follows(in, "the configuration"));
    loading_.config = Loading::Config::Read;
    trace::vfio_load_device_config_state_end(env_.trace, label_);
    return {};
}

// A body of another size would be misread, and reading on past its end would wait for ever.
Result<> VfioMigration::load_config_size(LoadStream& in) {
    if (!loading_.attempt->peer_features().config_size) {
        return bad_stream("device {}: the size of its configuration was not asked for", label_);
    }
    MIG_TRY(const uint32_t theirs, in.be32(), "device {}: reading its state", label_);
    const uint32_t ours = setup_.config != nullptr ? setup_.config->config_bytes() : 0;
    if (theirs == ours) return {};
    return bad_stream(
        "device {}: its configuration has {} bytes at the source and {} here; the devices differ "
        "in the size of their configuration space or in their number of MSI-X vectors, or the "
        "machines in their type",
        label_, theirs, ours);
}

Result<> VfioMigration::load_init_data_sent() {
    if (!setup_.caps.pre_copy) {
        return bad_stream(
            "device {}: the source sent its initial data in pre-copy, which this "
            "device does not have",
            label_);
    }
    if (!loading_.attempt->capabilities().has(Capability::SwitchoverAck)) {
        return bad_stream(
            "device {}: the source waits for consent to switch over; turn the "
            "capability switchover-ack on here as well",
            label_);
    }
    // Twice must not stand for the consent of another device.
    if (std::exchange(loading_.switchover_approved, true)) return {};
    return loading_.attempt->approve_switchover();
}

Result<> VfioMigration::load_discard() {
    if (!loading_.attempt->peer_features().discard) {
        return bad_stream("device {}: the source begins its state anew, which was not agreed on",
                          label_);
    }
    MIG_CHECK(check_channel("its state begins anew"));
    if (loading_.queue_open) return loading_.queue->put(StatePacketKind::Discard);
    loading_.image_complete = false;
    return begin_anew();
}

Result<> VfioMigration::begin_anew() {
    trace::vfio_load_discard(env_.trace, label_);
    MIG_CHECK(worker_.run([this]() -> Result<> {
        // No other way leads out of RESUMING: a change of state would apply the image.
        MIG_CHECK(state_.reset("the source begins anew"));
        return enter_resuming();
    }));
    loading_.session = state_.session().number;
    status_->loaded_bytes.store(0, std::memory_order_relaxed);
    return {};
}

// The device's part of the pause, which begins with the switchover if there is a word of it.
void VfioMigration::begin_span() {
    if (loading_.span_begin) return;
    loading_.span_begin = env_.timeline.now();
    loading_.loaded_before = status_->loaded_bytes.load(std::memory_order_relaxed);
}

void VfioMigration::end_span() {
    if (!loading_.span_begin) return;
    env_.timeline.add(
        {.who = label_,
         .step = "load",
         .begin = *loading_.span_begin,
         .end = env_.timeline.now(),
         .bytes = status_->loaded_bytes.load(std::memory_order_relaxed) - loading_.loaded_before});
}

// All that came before is in the device: packets may follow.
Result<> VfioMigration::switchover_start() {
    begin_span();
    if (!loading_.queue_open) open_queue();
    return {};
}

void VfioMigration::open_queue() {
    loading_.queue_open = true;
    loading_.queue->open();
}

// Once packets are taken from the page channels nothing of the state may come by the main one.
Result<> VfioMigration::check_channel(std::string_view what) const {
    if (loading_.via == StateWriter::Via::MainChannel || !loading_.queue_open) return {};
    return channel_error(what);
}

Error VfioMigration::channel_error(std::string_view what) const {
    return bad_stream(
        "device {}: {} on the main channel, but is awaited on page channels; "
        "x-migration-multifd-transfer must be the same on both sides",
        label_, what);
}

void VfioMigration::load_validate(system::Done done) {
    // What is not in the stream will not come on a page channel either, nor what nobody may take.
    if (!loading_.named || !loading_.queue_open) loading_.queue->fail(incomplete());
    loading_.loader->when_done([this, done = std::move(done)](Result<> loaded) mutable {
        end_span();
        worker_.post([this, loaded = std::move(loaded), done = std::move(done)]() mutable {
            done(loaded ? validate() : std::move(loaded));
        });
    });
}

Error VfioMigration::incomplete() const {
    return make_error(ErrorKind::Protocol,
                      "device {}: the stream has no complete state for it; is the device at the "
                      "same place on the source?",
                      label_);
}

Result<> VfioMigration::validate() {
    const util::ScopedSpan span(env_.timeline, label_, "validate");
    const auto judge = [this]() -> Result<> {
        MIG_CHECK(state_.check_usable());
        if (!loading_.image_complete || loading_.config != Loading::Config::Read) {
            return incomplete();
        }
        if (setup_.config != nullptr) {
            loading_.config = Loading::Config::Begun;
            MIG_CHECK(setup_.config->apply_config(), "device {}: loading its configuration",
                      label_);
        }
        MIG_CHECK(state_.set_state(MigState::Stop, "all of its state was received"),
                  "device {}: its driver does not accept the received state", label_);
        return {};
    };
    Result<> result = judge();
    trace::vfio_load_validate(env_.trace, label_, result ? "accepted" : result.error().message());
    return result;
}

// A failed attempt leaves the device as new, so that another one can begin. (QEMU leaves it RUNNING
// where the VM waits for migration; here a stopped VM's devices are stopped.)
void VfioMigration::load_cleanup(Outcome outcome) noexcept {
    if (loading_.attempt == nullptr) return;
    trace::vfio_load_cleanup(env_.trace, label_,
                             outcome == Outcome::Completed ? "completed" : "failed");
    if (loading_.queue != nullptr)
        loading_.queue->fail(Error(ErrorKind::Cancelled, "the load is over"));
    loading_.loader.reset();
    if (outcome == Outcome::Failed) {
        const auto reset = worker_.run([this] { return become_as_new(); });
        if (!reset) {
            env_.log.log(util::LogLevel::Error,
                         fmt::format("after the migration: {}", reset.error().message()));
        }
    }
    loading_ = Loading{};
}

// The interrupts go even where the device could not be reset: they belong to no VM.
Result<> VfioMigration::become_as_new() {
    if (state_.vm() == VmActivity::Running) return {};
    Result<> result;
    if (!state_.broken()) result = state_.reset("the migration failed");
    if (loading_.config != Loading::Config::Begun) return result;
    auto forgotten = setup_.config->forget_config();
    if (forgotten) return result;
    Error error = std::move(forgotten).error().context(
        fmt::format("device {}: forgetting its configuration", label_));
    if (!result) return std::move(result).error().attach(std::move(error));
    return error;
}

}  // namespace ferry::vfio
