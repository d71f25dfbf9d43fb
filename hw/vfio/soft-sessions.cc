// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/soft-sessions.h"

#include <algorithm>
#include <cerrno>

#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

bool is_precopy(MigState state) {
    return state == MigState::PreCopy || state == MigState::PreCopyP2P;
}

}  // namespace

// The descriptor of one session, in the kernel's terms.
class SoftSessions::Stream final : public MigDataStream {
 public:
    Stream(std::shared_ptr<SoftSessions> device, SessionId session, SessionKind kind)
        : device_(std::move(device)), session_(session), kind_(kind) {}

    Result<Read> read_some(MutBytes into) override {
        if (kind_ != SessionKind::Saving) return make_errno(EBADF, "reading a resuming session");
        return device_->read(session_, into);
    }
    Result<size_t> write_some(ConstBytes from) override {
        if (kind_ != SessionKind::Resuming) return make_errno(EBADF, "writing a saving session");
        return device_->write(session_, from);
    }
    Result<PrecopyInfo> precopy_info() override {
        if (kind_ != SessionKind::Saving) {
            return Error(ErrorKind::Unsupported, "pre-copy information of a resuming session",
                         ENOTTY);
        }
        return device_->precopy_info(session_);
    }

 private:
    const std::shared_ptr<SoftSessions> device_;
    const SessionId session_;
    const SessionKind kind_;
};

SoftSessions::SoftSessions(std::unique_ptr<hw::DeviceModel> model, util::Env& env, std::string name)
    : env_(env), name_(std::move(name)), caps_(model->migration_caps()), model_(std::move(model)) {}

Result<std::unique_ptr<MigDataStream>> SoftSessions::set_state(MigState next) {
    const std::lock_guard lock(one_call_);
    const SessionId before = last_session_;
    MIG_TRY(const auto path, mig_path(caps_, state_, next));
    for (const MigState step : path) MIG_CHECK(take_arc(step));
    if (last_session_ == before) return std::unique_ptr<MigDataStream>();
    // A path opens a session with its last arc only.
    return std::make_unique<Stream>(shared_from_this(), last_session_, session_of(next));
}

Result<> SoftSessions::take_arc(MigState next) {
    const MigState from = state_;
    auto [result, after] = model_->enter(from, next);
    if (result) {
        trace::vfio_soft_arc(env_.trace, name_, to_string(from), to_string(next));
        enter(next);
        return {};
    }
    trace::vfio_soft_arc_failed(env_.trace, name_, to_string(from), to_string(next),
                                result.error().message());
    if (after == hw::DeviceModel::AfterFailure::IsLost) enter(MigState::Error);
    return std::move(result).error().context(
        fmt::format("{} -> {}", to_string(from), to_string(next)));
}

void SoftSessions::enter(MigState next) {
    const SessionKind had = session_of(state_);
    const SessionKind has = session_of(next);
    if (has == SessionKind::None) {
        session_ = kNoSession;
    } else if (had != has) {
        session_ = ++last_session_;
    }
    state_ = next;
}

Result<uint64_t> SoftSessions::stop_copy_bytes() {
    const std::lock_guard lock(one_call_);
    return model_->stop_copy_bytes();
}

Result<> SoftSessions::reset() {
    const std::lock_guard lock(one_call_);
    MIG_CHECK(model_->reset());
    trace::vfio_soft_reset(env_.trace, name_);
    enter(MigState::Running);
    return {};
}

void SoftSessions::close() {
    const std::lock_guard lock(one_call_);
    session_ = kNoSession;
    model_.reset();
}

Result<> SoftSessions::check_alive(SessionId session) const {
    if (session == session_) return {};
    return make_errno(ENODEV, "the data session is over");
}

Result<MigDataStream::Read> SoftSessions::read(SessionId session, MutBytes into) {
    const std::lock_guard lock(one_call_);
    MIG_CHECK(check_alive(session));
    auto bytes = model_->save_read(state_, into);
    if (bytes) return MigDataStream::Read{std::min(*bytes, into.size())};
    if (bytes.error().errnum() == ENOMSG && is_precopy(state_)) return MigDataStream::Read{0};
    return std::move(bytes).error();
}

Result<size_t> SoftSessions::write(SessionId session, ConstBytes from) {
    const std::lock_guard lock(one_call_);
    MIG_CHECK(check_alive(session));
    if (from.empty()) return make_error(ErrorKind::InvalidArgument, "nothing to write");
    MIG_TRY(const size_t bytes, model_->load_write(from));
    if (bytes == 0 || bytes > from.size()) {
        return make_errno(EIO, "the model took {} of {} bytes", bytes, from.size());
    }
    return bytes;
}

Result<PrecopyInfo> SoftSessions::precopy_info(SessionId session) {
    const std::lock_guard lock(one_call_);
    if (!caps_.pre_copy) {
        return Error(ErrorKind::Unsupported, "the device has no pre-copy", ENOTTY);
    }
    // The order of the kernel's drivers: the state is judged first.
    if (!is_precopy(state_)) {
        return make_errno(EINVAL, "no pre-copy information in state {}", to_string(state_));
    }
    MIG_CHECK(check_alive(session));
    return model_->precopy_info();
}

}  // namespace ferry::vfio
