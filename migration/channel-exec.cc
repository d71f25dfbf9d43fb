// SPDX-License-Identifier: BSD-2-Clause
// The stream goes to, or comes from, a command. A stream is complete only when the command says so
// by its exit status: a compressor may find out at the very end.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "migration/channel-child.h"
#include "migration/channel-fd.h"
#include "migration/channel-open.h"
#include "migration/channel.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// Fewer switches between the command and us. As far as the system's limit allows.
constexpr int kPipeBytes = 1 << 20;
// A command that closes its input is about to end: its status says more than "Broken pipe".
constexpr int kExitGraceMs = 1000;

class ExecChannel final : public MigrationChannel {
 public:
    ExecChannel(PolledFd::Parts parts, std::unique_ptr<ChildProcess> child, FdUse use,
                std::string name)
        : pipe_(std::move(parts), PolledFd::Type::Pipe, std::move(name)),
          child_(std::move(child)),
          use_(use) {}

    std::string_view name() const override { return pipe_.name(); }
    Features features() const override { return {.taker = Taker::Command}; }
    Result<size_t> read_some(MutBytes into) override;
    Result<> write_all(std::span<const ConstBytes> parts) override;
    Result<> finish_writing() override;
    void shutdown(Error reason) noexcept override { pipe_.shutdown(std::move(reason)); }

 private:
    Result<ChildProcess::Status> await_end();
    Result<> judge(const ChildProcess::Status& status) const;
    Error wrong_way() const {
        if (auto woken = pipe_.waker().check(); !woken) return std::move(woken).error();
        return make_error(ErrorKind::InvalidState, "{}: open for {} only", name(),
                          use_ == FdUse::Incoming ? "reading" : "writing");
    }

    PolledFd pipe_;
    // Goes before the pipe: a command that sees the end of its input because the migration failed
    // must not take it for the end of the stream.
    std::unique_ptr<ChildProcess> child_;
    const FdUse use_;
};

Result<size_t> ExecChannel::read_some(MutBytes into) {
    if (use_ == FdUse::Outgoing) return wrong_way();
    MIG_TRY(const size_t count, pipe_.read_some(into, bytes_read_));
    if (count == 0) {
        MIG_TRY(const ChildProcess::Status status, await_end());
        MIG_CHECK(judge(status));
    }
    return count;
}

Result<> ExecChannel::write_all(std::span<const ConstBytes> parts) {
    if (use_ == FdUse::Incoming) return wrong_way();
    auto written = pipe_.write_all(parts, bytes_written_);
    if (written || written.error().errnum() != EPIPE) return written;
    MIG_TRY(const ChildProcess::Status status, child_->wait(pipe_.waker(), kExitGraceMs));
    if (status.exit == ChildProcess::Exit::StillRunning) return written;
    return Error(ErrorKind::PeerClosed, fmt::format("{}: sending: {}", name(), status.text), EPIPE);
}

// Outgoing: the command sees the end of the stream. Incoming: nobody reads on. Both: it has ended
// well.
Result<> ExecChannel::finish_writing() {
    MIG_CHECK(pipe_.finish_writing());
    MIG_TRY(const ChildProcess::Status status, await_end());
    // We stopped reading before it stopped writing: for us the stream was over.
    if (use_ == FdUse::Incoming && status.signal == SIGPIPE) return {};
    return judge(status);
}

Result<ChildProcess::Status> ExecChannel::await_end() {
    auto status = child_->wait(pipe_.waker());
    if (!status) child_->kill();
    return status;
}

Result<> ExecChannel::judge(const ChildProcess::Status& status) const {
    if (status.exit == ChildProcess::Exit::Success) return {};
    return make_error(ErrorKind::PeerFailed, "{}: {}", name(), status.text);
}

struct Pipe {
    UniqueFd read_end;
    UniqueFd write_end;
};

Result<Pipe> make_pipe() {
    int ends[2];
    MIG_CHECK(util::check_call(::pipe2(ends, O_CLOEXEC), "pipe2"));
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

Result<std::unique_ptr<MigrationChannel>> start_exec_channel(const ExecAddress& address,
                                                             FdUse use) {
    const std::string name = to_string(address);
    MIG_TRY(Pipe pipe, make_pipe(), "{}", name);
    ::fcntl(pipe.write_end.raw(), F_SETPIPE_SZ, kPipeBytes);
    const bool outgoing = use == FdUse::Outgoing;
    MIG_TRY(PolledFd::Parts ours,
            PolledFd::prepare(std::move(outgoing ? pipe.write_end : pipe.read_end)), "{}", name);
    // What an outgoing command prints is for people, and must not mix with what we print.
    MIG_TRY(const UniqueFd null, util::open_file("/dev/null", O_RDONLY), "{}", name);
    const ChildProcess::Spec spec{
        .args = address.args,
        .standard_input = outgoing ? pipe.read_end.borrow() : null.borrow(),
        .standard_output = outgoing ? BorrowedFd(STDERR_FILENO) : pipe.write_end.borrow(),
        .name = name,
    };
    MIG_TRY(auto child, ChildProcess::start(spec));
    return std::unique_ptr<MigrationChannel>(
        std::make_unique<ExecChannel>(std::move(ours), std::move(child), use, name));
}

}  // namespace ferry::migration
