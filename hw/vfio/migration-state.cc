// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/migration-state.h"

#include <cerrno>
#include <utility>

#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

MigState without_session(MigState state) {
    switch (state) {
        case MigState::PreCopy: return MigState::Running;
        case MigState::PreCopyP2P: return MigState::RunningP2P;
        case MigState::StopCopy:
        case MigState::Resuming: return MigState::Stop;
        case MigState::Error:
        case MigState::Stop:
        case MigState::Running:
        case MigState::RunningP2P: return state;
    }
    return state;
}

DeviceState::DeviceState(VfioDeviceIo& io, util::Env& env, std::shared_ptr<DeviceStatus> status,
                         VmActivity vm, Listener& listener)
    : io_(io), env_(env), status_(std::move(status)), listener_(listener), vm_(vm) {}

MigSession DeviceState::session() const {
    const std::lock_guard lock(mutex_);
    return session_;
}

std::string DeviceState::why_session_ended() const {
    const std::lock_guard lock(mutex_);
    return why_ended_;
}

Result<> DeviceState::check_usable() const {
    if (!broken()) return {};
    const std::lock_guard lock(mutex_);
    return make_error(ErrorKind::InvalidState, "device {} is broken: {}; reset or unplug it",
                      status_->label, broken_reason_);
}

Result<> DeviceState::set_state(MigState next, std::string_view why) {
    MIG_CHECK(check_usable());
    const MigState former = state();
    if (next == former) return {};
    trace::vfio_migration_set_state(env_.trace, status_->label, to_string(former), to_string(next),
                                    why);
    auto stream = drive(next);
    Held held = Held::Alive;
    Result<> accepted;
    if (stream) {
        accepted = accept(former, next, std::move(*stream), why);
        if (accepted) return {};
        held = Held::Dead;
    } else {
        accepted = std::move(stream).error();
    }
    return recover(former, held,
                   std::move(accepted).error().context(
                       fmt::format("device {}: changing from {} to {}", status_->label,
                                   to_string(former), to_string(next))));
}

// The driver arrived in `next`. Whether the session it has now is the one expected.
Result<> DeviceState::accept(MigState former, MigState next, std::unique_ptr<MigDataStream> stream,
                             std::string_view why) {
    const SessionKind kind = session_of(next);
    const bool continues =
        kind != SessionKind::None && session_of(former) == kind && session().stream != nullptr;
    if (continues && stream) {
        return make_errno(EBADF,
                          "the driver opened a second data session; the first one must have ended "
                          "unnoticed, as by a reset");
    }
    if (kind != SessionKind::None && !continues) {
        if (!stream) return make_errno(EBADF, "the driver opened no data session");
        end_session(why);
        begin_session(std::move(stream));
    }
    arrive(next, why);
    return {};
}

// The one policy for a change that failed: the former state, else where the driver says it is, else
// a reset, else the device is given up. SET is never issued in ERROR. A former state whose session
// is gone is replaced by what remains of it: a session that was begun anew would be another one.
Error DeviceState::recover(MigState former, Held held, Error error) {
    trace::vfio_migration_refused(env_.trace, status_->label, error.message());
    auto where = ask();
    bool moved = false;
    if (where && *where != MigState::Error) {
        const bool same_session = held == Held::Alive && session_of(*where) == session_of(former);
        const MigState home = same_session ? former : without_session(former);
        if (*where != home) {
            moved = true;
            if (auto back = drive(home)) {
                where = home;
            } else {
                error.attach_in_place(std::move(back).error().context(
                    fmt::format("going back to {}", to_string(home))));
                where = ask();
            }
        }
    }
    if (where && *where != MigState::Error) {
        trace::vfio_migration_recovered(env_.trace, status_->label, to_string(*where));
        if (held == Held::Dead) end_session("the driver lost the session");
        if (moved || *where != former) arrive(*where, "a failed change of its state");
        return error;
    }
    if (!where) {
        error.attach_in_place(std::move(where).error().context("asking the driver for its state"));
    }
    reset_after(error);
    return error;
}

void DeviceState::reset_after(Error& error) {
    if (auto done = drive_reset(); !done) {
        mark_broken(error.message());
        error.attach_in_place(std::move(done).error().context("resetting the device"));
        error.attach_in_place(
            Error(ErrorKind::InvalidState, "the device is broken; reset or unplug it"));
        return;
    }
    env_.log.log(
        util::LogLevel::Error,
        fmt::format("device {} was reset, its driver in the guest has to start it anew: {}",
                    status_->label, error.message()));
    error.attach_in_place(Error(ErrorKind::InvalidState, "the device was reset"));
    arrive(MigState::Running, "a reset after a failed change of its state");
    if (auto rested = rest_after_reset(); !rested) {
        error.attach_in_place(std::move(rested).error());
    }
}

// A reset makes the device run; in a stopped VM it must not.
Result<> DeviceState::rest_after_reset() {
    const MigState rest = resting_state();
    if (state() == rest) return {};
    auto stopped = drive(rest);
    if (!stopped) {
        return std::move(stopped).error().context(
            fmt::format("device {}: stopping it after a reset", status_->label));
    }
    arrive(rest, "the VM is stopped");
    return {};
}

Result<> DeviceState::reset(std::string_view why) {
    MIG_CHECK(check_usable());
    if (auto done = drive_reset(); !done) {
        mark_broken(fmt::format("it could not be reset: {}", done.error().message()));
        return std::move(done).error().context(
            fmt::format("device {}: resetting it", status_->label));
    }
    arrive(MigState::Running, why);
    return rest_after_reset();
}

void DeviceState::was_reset_by_others() {
    const bool was_broken = broken();
    if (auto known = find_out("the device was reset"); !known) {
        if (!was_broken) mark_broken(known.error().message());
        return;
    }
    if (broken()) return;
    if (was_broken) listener_.device_repaired();
    const bool runs = state() == MigState::Running || state() == MigState::RunningP2P;
    if (!runs || vm_ == VmActivity::Running) return;
    if (auto rested = rest_after_reset(); !rested) {
        env_.log.log(util::LogLevel::Error, rested.error().message());
    }
}

bool DeviceState::session_lives(uint64_t number) {
    // Where even that fails, the stream's own error tells more.
    if (auto known = find_out("the device was reset"); !known) return true;
    const MigSession now = session();
    return now.stream != nullptr && now.number == number;
}

// Believes the driver, not the cache.
Result<> DeviceState::find_out(std::string_view why) {
    MIG_TRY(const MigState where, ask(), "device {}: asking the driver for its state",
            status_->label);
    if (where != MigState::Error) {
        if (where != state()) arrive(where, why);
    } else if (!broken()) {
        Error error = make_error(ErrorKind::InvalidState, "device {}: its driver reports an error",
                                 status_->label);
        reset_after(error);
    }
    return {};
}

Result<std::unique_ptr<MigDataStream>> DeviceState::drive(MigState next) {
    return io_.set_mig_state(next);
}

Result<> DeviceState::drive_reset() {
    trace::vfio_migration_reset(env_.trace, status_->label);
    return io_.reset();
}

Result<MigState> DeviceState::ask() {
    return io_.mig_state();
}

void DeviceState::arrive(MigState state, std::string_view why) {
    if (session_of(state) == SessionKind::None) end_session(why);
    status_->state.store(state, std::memory_order_release);
    trace::vfio_migration_state_changed(env_.trace, status_->label, to_string(state));
    listener_.state_changed(state);
}

void DeviceState::mark_broken(std::string reason) {
    end_session("the device broke");
    {
        const std::lock_guard lock(mutex_);
        broken_reason_ = reason;
    }
    status_->state.store(MigState::Error, std::memory_order_release);
    trace::vfio_migration_broken(env_.trace, status_->label, reason);
    env_.log.log(util::LogLevel::Error, fmt::format("device {} is broken, reset or unplug it: {}",
                                                    status_->label, reason));
    listener_.device_broken(reason);
}

void DeviceState::begin_session(std::unique_ptr<MigDataStream> stream) {
    const std::lock_guard lock(mutex_);
    session_.stream = std::move(stream);
    ++session_.number;
}

void DeviceState::end_session(std::string_view why) {
    // Closed outside the lock, unless somebody is just reading from it.
    std::shared_ptr<MigDataStream> closing;
    const std::lock_guard lock(mutex_);
    if (!session_.stream) return;
    closing = std::move(session_.stream);
    session_.stream.reset();
    why_ended_ = why;
}

}  // namespace ferry::vfio
