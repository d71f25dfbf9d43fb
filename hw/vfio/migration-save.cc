// SPDX-License-Identifier: BSD-2-Clause
// The source's half: reads the device's image and sends it. Driver calls that change or ask the
// device go through its worker; the data stream is read on the migration thread, and on a thread of
// the device's own once the guest stands still.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "hw/vfio/migration.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

using migration::Capability;
using migration::IterateStatus;
using migration::SaveSession;
using migration::SaveStream;
using migration::StatePacketKind;
using migration::StateWriter;

namespace {
// One read, one DATA record. A driver that announces little gets less memory, but never none.
constexpr size_t kMinDataBuffer = size_t{64} * 1024;
constexpr size_t kMaxDataBuffer = migration::kMaxStateBytes;
// A packet's place on the page channels counts as state, as in QEMU.
constexpr uint64_t kPlaceBytes = 12;
// Assumed for a device that can't tell, so that the downtime limit is not broken in silence.
constexpr uint64_t kUnknownStopCopyBytes = 100ULL * 1024 * 1024 * 1024;

std::string_view to_string(migration::SaveVMHandlers::Outcome outcome) {
    return outcome == migration::SaveVMHandlers::Outcome::Completed ? "completed" : "failed";
}
}  // namespace

Result<> VfioMigration::save_prepare(SaveSession& session) {
    MIG_CHECK(state_.check_usable());
    if (session.mode() == SaveSession::Mode::Snapshot) return {};
    for (const Capability capability : {Capability::PostcopyRam, Capability::BackgroundSnapshot}) {
        if (session.capabilities().has(capability)) {
            Error error(ErrorKind::Unsupported,
                        fmt::format("device {} can't migrate with the capability {}: it writes to "
                                    "guest memory behind the VMM's back; turn the capability off",
                                    label_, migration::to_string(capability)),
                        EOPNOTSUPP);
            trace::vfio_migration_refused(env_.trace, label_, error.message());
            return error;
        }
    }
    return {};
}

Result<> VfioMigration::save_setup(SaveSession& session, SaveStream& out) {
    saving_ = Saving{.attempt = &session, .buffer = {}, .left = {}};
    MIG_TRY(const auto via, choose_channel(session.page_channels_take_state()));
    MIG_TRY(const auto features, session.peer_features());
    if (features.config_size && setup_.config != nullptr) {
        out.be64(record::kConfigSize);
        out.be32(setup_.config->config_bytes());
    }
    out.be64(record::kSetupState);
    const auto size = worker_.run([this] { return setup_.io.stop_copy_bytes(); });
    const uint64_t bytes =
        std::clamp<uint64_t>(size ? *size : kMaxDataBuffer, kMinDataBuffer, kMaxDataBuffer);
    MIG_TRY(saving_.writer, session.state_writer(*this, bytes, via));
    saving_.early = features.state_early && via == StateWriter::Via::PageChannels;
    if (setup_.caps.pre_copy && !saving_.early) saving_.buffer.resize(bytes);
    trace::vfio_save_setup(env_.trace, label_, bytes);
    MIG_CHECK(worker_.run([this, mode = session.mode()] { return enter_setup_state(mode); }));
    adopt_session();
    refresh_precopy_info();
    out.be64(record::kEndOfState);
    return out.status();
}

// Asked once an attempt, on both sides: what is set later is for the next one.
Result<StateWriter::Via> VfioMigration::choose_channel(bool page_channels) const {
    switch (multifd_transfer_.load()) {
        case OnOffAuto::Off: return StateWriter::Via::MainChannel;
        case OnOffAuto::On:
            if (page_channels) break;
            return make_error(ErrorKind::Unsupported,
                              "device {}: x-migration-multifd-transfer=on needs the capability "
                              "multifd without compression (multifd-compression=none), and "
                              "migration.send-switchover-start=on",
                              label_);
        case OnOffAuto::Auto: break;
    }
    return page_channels ? StateWriter::Via::PageChannels : StateWriter::Via::MainChannel;
}

// A running VM's device begins with pre-copy, a stopped VM's device waits in STOP. One that is
// between two passes of a stop or start is left alone: is_active_iterate() will see.
Result<> VfioMigration::enter_setup_state(SaveSession::Mode mode) {
    MIG_CHECK(state_.check_usable());
    if (state_.state() == MigState::Resuming) {
        return make_error(ErrorKind::InvalidState, "device {} is still being loaded", label_);
    }
    // Left over from an attempt whose end could not be cleaned up.
    if (session_of(state_.state()) == SessionKind::Saving) MIG_CHECK(leave_saving_states());
    if (mode == SaveSession::Mode::Live) MIG_CHECK(open_pre_copy());
    // A VM that never ran: its devices are as they were opened.
    if (state_.state() == MigState::Running && state_.vm() == VmActivity::Stopped) {
        return state_.set_state(MigState::Stop, "the VM is stopped");
    }
    return {};
}

Result<> VfioMigration::open_pre_copy() {
    const bool possible = setup_.caps.pre_copy && state_.state() == MigState::Running &&
                          state_.vm() == VmActivity::Running;
    return possible ? state_.set_state(MigState::PreCopy, "migration") : Result<>();
}

uint64_t VfioMigration::state_pending_estimate() {
    if (!session_is_alive() || !is_pre_copy(state_.state())) return 0;
    const auto [initial, dirty] = saving_.left;
    trace::vfio_state_pending_estimate(env_.trace, label_, initial, dirty);
    return initial > UINT64_MAX - dirty ? UINT64_MAX : initial + dirty;
}

Result<uint64_t> VfioMigration::state_pending_exact() {
    const auto size = worker_.run([this] { return setup_.io.stop_copy_bytes(); });
    if (!size && !std::exchange(saving_.size_failure_told, true)) {
        env_.log.log(
            util::LogLevel::Warning,
            fmt::format("device {} can't tell the size of its state, {} bytes are assumed; "
                        "raise downtime-limit to migrate all the same: {}",
                        label_, kUnknownStopCopyBytes, size.error().message()));
    }
    refresh_precopy_info();
    const uint64_t bytes = size ? *size : kUnknownStopCopyBytes;
    trace::vfio_state_pending_exact(env_.trace, label_, bytes, saving_.left.initial_bytes,
                                    saving_.left.dirty_bytes);
    // The size after the stop contains what pre-copy has not sent yet.
    return bytes;
}

void VfioMigration::refresh_precopy_info() {
    if (!session_is_alive() || !is_pre_copy(state_.state())) return;
    // Fails in the moment the VM is stopped: nothing is left for pre-copy then.
    const auto info = state_.session().stream->precopy_info();
    saving_.left = info ? *info : PrecopyInfo{};
}

bool VfioMigration::session_is_alive() const {
    const MigSession now = state_.session();
    return now.stream != nullptr && now.number == saving_.session;
}

void VfioMigration::adopt_session() {
    const MigSession now = state_.session();
    if (!now.stream || now.number == saving_.session) return;
    saving_.session = now.number;
    saving_.sent_of_session = 0;
    saving_.left = {};
}

bool VfioMigration::is_active_iterate() {
    if (saving_.attempt == nullptr || !setup_.caps.pre_copy ||
        saving_.attempt->mode() == SaveSession::Mode::Snapshot) {
        return false;
    }
    if (session_is_alive()) return is_pre_copy(state_.state());
    // Its session ended, or the VM was paused when the migration began.
    return saving_.sent_of_session > 0 || state_.state() == MigState::Running;
}

Result<IterateStatus> VfioMigration::save_live_iterate(SaveStream& out) {
    if (!session_is_alive()) {
        MIG_TRY(const Former former, judge_former_session(true));
        if (former == Former::Worthless && saving_.early) {
            MIG_CHECK(saving_.writer->send(0, StatePacketKind::Discard));
        } else if (former == Former::Worthless) {
            out.be64(record::kDiscard);
        }
        MIG_CHECK(worker_.run([this] { return open_pre_copy(); }));
        adopt_session();
        refresh_precopy_info();
    }
    const MigSession session = state_.session();
    if (!session_is_alive() || !session.stream) {  // a stop or start is under way
        out.be64(record::kEndOfState);
        MIG_CHECK(out.status());
        return IterateStatus::Done;
    }
    return send_pre_copy_block(out, *session.stream);
}

Result<IterateStatus> VfioMigration::send_pre_copy_block(SaveStream& out, MigDataStream& stream) {
    trace::vfio_save_iterate_start(env_.trace, label_);
    MutBytes room(saving_.buffer);
    if (saving_.early) {
        MIG_TRY(room, saving_.writer->room());
    }
    auto got = read_block(stream, room);
    if (!got) {
        const bool lives = worker_.run([this] { return state_.session_lives(saving_.session); });
        if (lives) {
            return std::move(got).error().context(
                fmt::format("device {}: reading its state in {}, after {} bytes", label_,
                            vfio::to_string(state_.state()), saving_.sent_of_session));
        }
        out.be64(record::kEndOfState);
        MIG_CHECK(out.status());
        return IterateStatus::More;  // to begin anew
    }
    uint64_t& initial = saving_.left.initial_bytes;
    uint64_t& dirty = saving_.left.dirty_bytes;
    if (*got == 0) {
        trace::vfio_save_block_precopy_empty_hit(env_.trace, label_);
        initial = dirty = 0;
    } else {
        MIG_CHECK(saving_.early ? saving_.writer->send(*got, StatePacketKind::Data)
                                : put_block(out, ConstBytes(room).first(*got)));
        count_sent(*got,
                   saving_.early ? StateWriter::Via::PageChannels : StateWriter::Via::MainChannel);
        const uint64_t of_initial = std::min<uint64_t>(*got, initial);
        initial -= of_initial;
        dirty -= std::min<uint64_t>(*got - of_initial, dirty);
    }
    trace::vfio_save_iterate(env_.trace, label_, initial, dirty);
    if (saving_.attempt->capabilities().has(Capability::SwitchoverAck) && initial == 0 &&
        !saving_.initial_data_sent) {
        saving_.initial_data_sent = true;
        MIG_CHECK(put_initial_data_sent(out));
    } else {
        out.be64(record::kEndOfState);
    }
    MIG_CHECK(out.status());
    return initial == 0 && dirty == 0 ? IterateStatus::Done : IterateStatus::More;
}

Result<> VfioMigration::put_initial_data_sent(SaveStream& out) {
    trace::vfio_save_init_data_sent(env_.trace, label_);
    if (!saving_.early) {
        out.be64(record::kInitDataSent);
        return {};
    }
    out.be64(record::kEndOfState);
    return saving_.writer->send(0, StatePacketKind::InitialDone);
}

// What the destination got of a session that ended must be forgotten before bytes of another.
Result<VfioMigration::Former> VfioMigration::judge_former_session(bool can_discard) {
    if (saving_.sent_of_session == 0) return Former::Nothing;
    const std::string why = state_.why_session_ended();
    trace::vfio_save_session_ended(env_.trace, label_, why);
    MIG_TRY(const auto features, saving_.attempt->peer_features());
    if (!features.discard || !can_discard) {
        return make_error(ErrorKind::InvalidState,
                          "device {}: the state sent so far has become worthless ({}), and this "
                          "destination can't begin anew; migrate again, and leave the VM alone "
                          "meanwhile",
                          label_, why);
    }
    saving_.sent_of_session = 0;
    return Former::Worthless;
}

// What is left went out as records before, or goes over other channels.
Result<> VfioMigration::save_live_complete_precopy(SaveStream& out) {
    out.be64(record::kEndOfState);
    return out.status();
}

Result<> VfioMigration::save_live_complete_precopy_thread(StateWriter& out) {
    trace::vfio_save_complete_precopy_start(env_.trace, label_);
    util::ScopedSpan span(env_.timeline, label_, "save");
    MIG_CHECK(worker_.run([this] { return enter_stop_copy(); }));
    const MigSession session = state_.session();
    if (!session.stream) {
        return make_error(ErrorKind::InvalidState, "device {}: its session has ended: {}", label_,
                          state_.why_session_ended());
    }
    if (!session_is_alive()) {
        const bool same_way = saving_.early || out.via() == StateWriter::Via::MainChannel;
        MIG_TRY(const Former former, judge_former_session(same_way));
        if (former == Former::Worthless) MIG_CHECK(out.send(0, StatePacketKind::Discard));
        adopt_session();
    }
    MIG_TRY(const uint64_t sent, send_image(out, *session.stream));
    span.add_bytes(sent);
    return out.via() == StateWriter::Via::PageChannels ? send_config(out) : Result<>();
}

Result<uint64_t> VfioMigration::send_image(StateWriter& out, MigDataStream& stream) {
    for (uint64_t sent = 0;;) {
        MIG_TRY(const MutBytes room, out.room());
        MIG_TRY(const size_t got, read_block(stream, room),
                "device {}: reading its state in {}, after {} bytes", label_,
                vfio::to_string(state_.state()), saving_.sent_of_session);
        if (got == 0) {
            trace::vfio_save_complete_precopy(env_.trace, label_, sent);
            return sent;
        }
        MIG_CHECK(out.send(got, StatePacketKind::Data));
        count_sent(got, out.via());
        sent += got;
    }
}

Result<> VfioMigration::send_config(StateWriter& out) {
    const util::ScopedSpan span(env_.timeline, label_, "config");
    migration::MemorySink sink;
    SaveStream body(sink);
    MIG_CHECK(put_config(body));
    MIG_CHECK(body.flush());
    MIG_TRY(const MutBytes room, out.room());
    if (sink.view().size() > room.size()) {
        return make_error(ErrorKind::LimitExceeded,
                          "device {}: {} bytes of configuration, one packet has {}", label_,
                          sink.view().size(), room.size());
    }
    std::ranges::copy(sink.view(), room.begin());
    shared_.count_sent(*status_, kPlaceBytes + sink.view().size());
    return out.send(sink.view().size(), StatePacketKind::Config);
}

Result<> VfioMigration::enter_stop_copy() {
    MIG_CHECK(state_.check_usable());
    if (state_.vm() == VmActivity::Running || state_.state() == MigState::Resuming) {
        return make_error(ErrorKind::InvalidState, "device {} is in state {}, not stopped", label_,
                          vfio::to_string(state_.state()));
    }
    return state_.set_state(MigState::StopCopy, "migration");
}

Result<size_t> VfioMigration::read_block(MigDataStream& stream, MutBytes into) {
    MIG_TRY(const MigDataStream::Read read, stream.read_some(into));
    if (read.bytes > into.size()) {
        return make_error(ErrorKind::Protocol, "the driver says it read {} bytes into {}",
                          read.bytes, into.size());
    }
    return read.bytes;
}

// The data go to the channel as they are, and have gone afterwards.
Result<> VfioMigration::put_block(SaveStream& out, ConstBytes data) {
    MIG_CHECK(save_state_block(out, StatePacketKind::Data, data));
    return out.flush();
}

Result<> VfioMigration::save_state_block(SaveStream& out, StatePacketKind kind, ConstBytes data) {
    if (kind == StatePacketKind::Discard) {
        out.be64(record::kDiscard);
        return out.status();
    }
    out.be64(record::kDataState);
    out.be64(data.size());
    out.bytes_ref(data);
    return out.status();
}

void VfioMigration::count_sent(uint64_t bytes, StateWriter::Via via) {
    saving_.sent_of_session += bytes;
    trace::vfio_save_block(env_.trace, label_, bytes);
    const uint64_t place = via == StateWriter::Via::PageChannels ? kPlaceBytes : 0;
    shared_.count_sent(*status_, place + bytes);
}

// The FULL section. Over the page channels the configuration went as the last packet.
Result<> VfioMigration::save_state(SaveStream& out) {
    if (saving_.writer != nullptr && saving_.writer->via() == StateWriter::Via::PageChannels) {
        const bool announced = setup_.properties.load_config_after_iter == OnOffAuto::On;
        out.be64(announced ? record::kConfigLoadReady : record::kEndOfState);
        return out.status();
    }
    return put_config(out);
}

Result<> VfioMigration::put_config(SaveStream& out) {
    const util::ScopedSpan span(env_.timeline, label_, "config");
    trace::vfio_save_device_config_state(env_.trace, label_);
    out.be64(record::kConfigState);
    if (setup_.config != nullptr) setup_.config->save_config(out);
    out.be64(record::kEndOfState);
    return out.status();
}

// After completion on purpose: leaving STOP_COPY may take long and must not prolong the pause.
void VfioMigration::save_cleanup(Outcome outcome) noexcept {
    if (saving_.attempt == nullptr) return;
    trace::vfio_save_cleanup(env_.trace, label_, to_string(outcome));
    if (auto left = worker_.run([this] { return leave_saving_states(); }); !left) {
        env_.log.log(util::LogLevel::Error,
                     fmt::format("after the migration: {}", left.error().message()));
    }
    saving_ = {};
}

// To where the VM is: it may be paused, and a stop or start may be between its passes. Tried twice,
// as a device that was only busy would go on recording its changes for nobody.
Result<> VfioMigration::leave_saving_states() {
    if (state_.broken()) return {};
    const auto leave = [this] {
        const MigState target =
            between_passes_ ? without_session(state_.state()) : state_.resting_state();
        return state_.set_state(target, "the migration ended");
    };
    auto first = leave();
    if (first || state_.broken() || session_of(state_.state()) != SessionKind::Saving) return first;
    auto second = leave();
    if (!second) {
        first.error().attach_in_place(std::move(second).error().context("at the second try"));
        return first;
    }
    env_.log.log(util::LogLevel::Warning,
                 fmt::format("it worked at the second try: {}", first.error().message()));
    return {};
}

}  // namespace ferry::vfio
