// SPDX-License-Identifier: BSD-2-Clause
// The destination's half: writes the received image into the device. The stream comes from an
// untrusted peer; what the image means is judged by the device's driver, in RESUMING -> STOP.
#include <algorithm>
#include <cerrno>
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
    loading_ = Loading{.attempt = &session};
    status_->loaded_bytes.store(0, std::memory_order_relaxed);
    MIG_CHECK(worker_.run([this] { return enter_resuming(); }));
    loading_.session = state_.session().number;
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
    std::optional<util::ScopedSpan> span;
    const uint64_t before = status_->loaded_bytes.load(std::memory_order_relaxed);
    if (kind == SectionKind::End) span.emplace(env_.timeline, label_, "load");
    for (;;) {
        MIG_TRY(const uint64_t tag, in.be64(), "device {}: reading its state", label_);
        trace::vfio_load_state(env_.trace, label_, tag);
        switch (tag) {
            case record::kEndOfState:
                if (kind == SectionKind::End) {
                    loading_.image_complete = true;
                    span->add_bytes(status_->loaded_bytes.load(std::memory_order_relaxed) - before);
                }
                return {};
            case record::kSetupState: return end_of_state_follows(in, "the setup record");
            case record::kDataState: MIG_CHECK(load_data(in)); break;
            case record::kConfigState: return load_config(in);
            case record::kInitDataSent: return load_init_data_sent();
            case record::kDiscard: MIG_CHECK(load_discard()); break;
            case record::kConfigSize: MIG_CHECK(load_config_size(in)); break;
            case record::kConfigLoadReady:
                return bad_stream(
                    "device {}: the source sends its state on extra channels; turn that off there "
                    "(x-migration-multifd-transfer=off)",
                    label_);
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
    const MigSession session = state_.session();
    if (!session.stream || session.number != loading_.session ||
        state_.state() != MigState::Resuming) {
        return make_error(ErrorKind::InvalidState,
                          "device {}: it can't take its state any more: {}", label_,
                          state_.why_session_ended());
    }
    while (left > 0) {
        MIG_TRY(const ConstBytes bytes, in.chunk(std::min<uint64_t>(left, kMaxChunk)),
                "device {}: receiving its state, {} bytes of a block are missing", label_, left);
        MIG_CHECK(write_all(*session.stream, bytes));
        left -= bytes.size();
    }
    return {};
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
    const util::ScopedSpan span(env_.timeline, label_, "config");
    trace::vfio_load_device_config_state_start(env_.trace, label_);
    if (setup_.config != nullptr) {
        loading_.config_begun = true;
        MIG_CHECK(setup_.config->load_config(in), "device {}: loading its configuration", label_);
    }
    MIG_CHECK(end_of_state_follows(in, "the configuration"));
    loading_.config_loaded = true;
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
    trace::vfio_load_discard(env_.trace, label_);
    MIG_CHECK(worker_.run([this]() -> Result<> {
        // No other way leads out of RESUMING: a change of state would apply the image.
        MIG_CHECK(state_.reset("the source begins anew"));
        return enter_resuming();
    }));
    loading_.session = state_.session().number;
    loading_.image_complete = false;
    status_->loaded_bytes.store(0, std::memory_order_relaxed);
    return {};
}

Result<> VfioMigration::switchover_start() {
    return {};
}

void VfioMigration::load_validate(system::Done done) {
    worker_.post([this, done = std::move(done)]() mutable { done(validate()); });
}

Result<> VfioMigration::validate() {
    const util::ScopedSpan span(env_.timeline, label_, "validate");
    const auto judge = [this]() -> Result<> {
        MIG_CHECK(state_.check_usable());
        if (!loading_.image_complete || !loading_.config_loaded) {
            return make_error(ErrorKind::Protocol,
                              "device {}: the stream has no complete state for it; is the device "
                              "at the same place on the source?",
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
    if (outcome == Outcome::Failed) {
        const auto reset = worker_.run([this] { return become_as_new(); });
        if (!reset) {
            env_.log.log(util::LogLevel::Error,
                         fmt::format("after the migration: {}", reset.error().message()));
        }
    }
    loading_ = {};
}

// The interrupts go even where the device could not be reset: they belong to no VM.
Result<> VfioMigration::become_as_new() {
    if (state_.vm() == VmActivity::Running) return {};
    Result<> result;
    if (!state_.broken()) result = state_.reset("the migration failed");
    if (!loading_.config_begun) return result;
    auto forgotten = setup_.config->forget_config();
    if (forgotten) return result;
    Error error = std::move(forgotten).error().context(
        fmt::format("device {}: forgetting its configuration", label_));
    if (!result) return std::move(result).error().attach(std::move(error));
    return error;
}

}  // namespace ferry::vfio
