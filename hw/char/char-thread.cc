// SPDX-License-Identifier: BSD-2-Clause
#include "hw/char/char-thread.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "util/syscall.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::chardev {

namespace {

constexpr size_t kReadBytes = 4096;
// After an accept that failed for want of something of the host's.
constexpr int kAcceptPauseMs = 1000;

bool may_be_repeated(const Error& error) {
    return error.errnum() == EAGAIN || error.errnum() == EINTR;
}

}  // namespace

Result<std::unique_ptr<CharBackend>> CharThread::create(const std::string& name,
                                                        CharEndpoint endpoint, util::Logger* log) {
    MIG_TRY(util::EventFd wake, util::EventFd::create(), "{}", name);
    std::unique_ptr<CharThread> backend(
        new CharThread(name, std::move(endpoint), log, std::move(wake)));
    MIG_TRY(backend->thread_,
            util::start_thread("char/" + name, [raw = backend.get()](const std::stop_token& stop) {
                raw->loop(stop);
            }));
    return backend;
}

CharThread::CharThread(std::string name, CharEndpoint endpoint, util::Logger* log,
                       util::EventFd wake)
    : name_(std::move(name)),
      log_(log),
      wake_(std::move(wake)),
      endpoint_(std::move(endpoint)),
      peer_(endpoint_.output.valid() ? Peer::Present : Peer::Absent) {}

CharThread::~CharThread() {
    thread_.request_stop();
    wake_.signal();
}

// ---- any thread

size_t CharThread::write(ConstBytes bytes) {
    const std::lock_guard lock(mutex_);
    if (peer_ == Peer::Absent) return bytes.size();
    const size_t taken = std::min(bytes.size(), kMaxQueuedOutputBytes - output_.size());
    if (output_.empty() && taken != 0) wake_.signal();
    output_.insert(output_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    if (taken < bytes.size()) device_waits_ = true;
    return taken;
}

void CharThread::readable() {
    wake_.signal();
}

util::Registration CharThread::serve(CharDevice& device) {
    {
        const std::lock_guard lock(device_mutex_);
        device_ = &device;
    }
    wake_.signal();
    return util::Registration([this] {
        const std::lock_guard lock(device_mutex_);
        device_ = nullptr;
    });
}

// ---- the thread

struct CharThread::Polled {
    std::array<pollfd, 4> fds{};
    size_t count = 0;

    // The result is where to find it; nothing is asked of an invalid descriptor.
    pollfd* add(const UniqueFd& fd, short events) {
        if (!fd.valid()) return nullptr;
        fds[count] = {fd.raw(), events, 0};
        return &fds[count++];
    }
    static bool ready(const pollfd* fd) { return fd != nullptr && fd->revents != 0; }
};

void CharThread::loop(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
        wait();
        give_input();
    }
    flush();
}

void CharThread::wait() {
    Polled polled;
    polled.fds[polled.count++] = {wake_.fd().raw(), POLLIN, 0};
    const pollfd* listener = nullptr;
    const pollfd* input = nullptr;
    const pollfd* output = nullptr;
    int timeout_ms = -1;
    if (!endpoint_.output.valid() && accepting_ == Accepting::Yes) {
        listener = polled.add(endpoint_.listener, POLLIN);
    } else if (!endpoint_.output.valid() && endpoint_.listener.valid()) {
        timeout_ms = kAcceptPauseMs;
    }
    if (input_.size() < kMaxQueuedInputBytes) input = polled.add(endpoint_.input, POLLIN);
    if (has_output()) output = polled.add(endpoint_.output, POLLOUT);

    // Fails only for want of memory; then it is tried again.
    const auto ready = util::poll_fds(polled.fds.data(), polled.count, timeout_ms);
    if (!ready) return;
    accepting_ = Accepting::Yes;
    (void)wake_.consume();
    if (Polled::ready(listener)) accept();
    if (Polled::ready(output)) write_queued();
    if (Polled::ready(input)) read();
}

void CharThread::accept() {
    if (auto accepted = accept_client(endpoint_); !accepted) {
        accepting_ = Accepting::AfterAPause;
        return complain(accepted.error());
    }
    if (!endpoint_.output.valid()) return;
    health_ = Health::Good;
    const std::lock_guard lock(mutex_);
    peer_ = Peer::Present;
}

// ---- input

void CharThread::read() {
    if (!endpoint_.input.valid()) return;  // it has just left
    std::array<std::byte, kReadBytes> piece;
    const size_t wanted = std::min(piece.size(), kMaxQueuedInputBytes - input_.size());
    const auto count =
        util::read_fd(endpoint_.input.borrow(), MutBytes(piece).first(wanted), "read");
    if (!count && may_be_repeated(count.error())) return;
    if (!count || *count == 0) return end_of_input();
    input_.insert(input_.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*count));
}

void CharThread::end_of_input() {
    if (endpoint_.kind == CharEndpoint::Kind::Socket) return peer_left();
    endpoint_.input.reset();  // of stdio; output goes on
}

void CharThread::give_input() {
    if (input_.empty()) return;
    const std::lock_guard lock(device_mutex_);
    if (device_ == nullptr) return;
    const size_t taken = device_->receive(input_);
    input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(taken));
}

// ---- output

bool CharThread::has_output() {
    const std::lock_guard lock(mutex_);
    return !output_.empty();
}

CharThread::Piece CharThread::next_output() {
    const std::lock_guard lock(mutex_);
    Piece piece;
    piece.size = std::min(piece.bytes.size(), output_.size());
    std::copy_n(output_.begin(), piece.size, piece.bytes.begin());
    return piece;
}

void CharThread::write_queued() {
    const Piece piece = next_output();
    const auto count = util::write_fd(endpoint_.output.borrow(),
                                      ConstBytes(piece.bytes).first(piece.size), "write");
    if (count) {
        health_ = Health::Good;
        return output_is_gone(*count);
    }
    if (may_be_repeated(count.error())) return;
    // What the peer has sent is still to be read; that also finds its end.
    if (endpoint_.kind == CharEndpoint::Kind::Socket) return nobody_reads();
    complain(make_error(ErrorKind::Syscall, "{}: output of the guest is lost: {}", endpoint_.name,
                        count.error().message()));
    output_is_gone(piece.size);
}

// So much of the queue was written, or cannot be.
void CharThread::output_is_gone(size_t count) {
    {
        const std::lock_guard lock(mutex_);
        output_.erase(output_.begin(), output_.begin() + static_cast<ptrdiff_t>(count));
        if (!std::exchange(device_waits_, false)) return;
    }
    const std::lock_guard lock(device_mutex_);
    if (device_ != nullptr) device_->writable();
}

void CharThread::nobody_reads() {
    size_t unsent = 0;
    {
        const std::lock_guard lock(mutex_);
        peer_ = Peer::Absent;
        unsent = output_.size();
    }
    output_is_gone(unsent);
}

void CharThread::peer_left() {
    endpoint_.input.reset();
    endpoint_.output.reset();
    nobody_reads();
}

void CharThread::flush() {
    while (endpoint_.output.valid() && has_output()) {
        pollfd output{endpoint_.output.raw(), POLLOUT, 0};
        const auto ready = util::poll_fds(&output, 1, 0);
        if (!ready || *ready == 0) return;
        write_queued();
    }
}

void CharThread::complain(const Error& error) {
    if (std::exchange(health_, Health::Failing) == Health::Failing || log_ == nullptr) return;
    log_->log(util::LogLevel::Warning, fmt::format("{}: {}", name_, error.message()));
}

}  // namespace ferry::chardev
