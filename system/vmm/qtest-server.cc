// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/qtest-server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "util/syscall.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using util::CharAddress;
constexpr size_t kReadChunk = 64 << 10;

Result<UniqueFd> accept_client(BorrowedFd listener) {
    MIG_TRY(const int number, util::check_call(::accept4(listener.raw(), nullptr, nullptr,
                                                         SOCK_CLOEXEC | SOCK_NONBLOCK),
                                               "accept(qtest)"));
    return UniqueFd(number);
}

// Invalid for none.
Result<UniqueFd> open_log(const QtestLog& log) {
    switch (log.to) {
        case QtestLog::To::Nowhere: break;
        case QtestLog::To::Stderr: {
            MIG_TRY(const int copy,
                    util::check_call(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), "fcntl"));
            return UniqueFd(copy);
        }
        case QtestLog::To::File: return util::open_file(log.path, O_WRONLY | O_CREAT | O_TRUNC);
    }
    return UniqueFd();
}

}  // namespace

QtestServer::QtestServer(qtest::Protocol::Parts parts, const util::Clock& clock, util::EventFd stop,
                         util::EventFd unasked)
    : clock_(clock),
      stop_(std::move(stop)),
      has_unasked_(std::move(unasked)),
      protocol_(parts, [this](std::string line) { add_unasked(std::move(line)); }) {}

Result<std::unique_ptr<QtestServer>> QtestServer::start(const CharAddress& where,
                                                        const QtestLog& log,
                                                        qtest::Protocol::Parts parts,
                                                        const util::Clock& clock) {
    MIG_TRY(auto stop, util::EventFd::create());
    MIG_TRY(auto unasked, util::EventFd::create());
    std::unique_ptr<QtestServer> server(
        new QtestServer(parts, clock, std::move(stop), std::move(unasked)));
    MIG_TRY(server->log_, open_log(log), "-qtest-log");
    MIG_CHECK(server->open(where), "-qtest");
    MIG_TRY(server->thread_,
            util::start_thread(
                "qtest", [self = server.get()](const std::stop_token&) { self->thread_main(); }));
    return server;
}

Result<> QtestServer::open(const CharAddress& where) {
    const bool socket =
        where.kind == CharAddress::Kind::Unix || where.kind == CharAddress::Kind::Tcp;
    if (!socket && where.kind != CharAddress::Kind::Fd) {
        return make_error(ErrorKind::Unsupported, "it can't be at {}, only at a socket",
                          to_string(where));
    }
    UniqueFd opened(where.fd);
    if (socket) {
        MIG_TRY(opened, util::open_char_socket(where));
    }
    if (where.side == CharAddress::Side::Connect) {
        MIG_CHECK(util::set_nonblocking(opened.borrow()), "{}", to_string(where));
        first_client_ = std::move(opened);
        return {};
    }
    listener_ = std::move(opened);
    unix_path_ = where.path;
    if (where.wait == CharAddress::Wait::ForClient) {
        MIG_TRY(first_client_, accept_client(listener_.borrow()));
    }
    return {};
}

QtestServer::~QtestServer() {
    stop_.signal();
    if (thread_.joinable()) thread_.join();
    if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
}

bool QtestServer::wait_for(BorrowedFd fd, short events) const {
    std::array<pollfd, 2> fds = {{{stop_.fd().raw(), POLLIN, 0}, {fd.raw(), events, 0}}};
    constexpr int kForever = -1;
    if (!util::poll_fds(fds.data(), fds.size(), kForever)) return false;
    return fds[0].revents == 0;
}

QtestServer::Woken QtestServer::wait_for_work(BorrowedFd client) const {
    std::array<pollfd, 3> fds = {{{stop_.fd().raw(), POLLIN, 0},
                                  {has_unasked_.fd().raw(), POLLIN, 0},
                                  {client.raw(), POLLIN, 0}}};
    constexpr int kForever = -1;
    if (!util::poll_fds(fds.data(), fds.size(), kForever)) return Woken::ByEnd;
    if (fds[0].revents != 0) return Woken::ByEnd;
    return fds[1].revents != 0 ? Woken::ByUnasked : Woken::ByClient;
}

void QtestServer::add_unasked(std::string line) {
    const std::lock_guard lock(unasked_mutex_);
    overrun_ = overrun_ || unasked_.size() == kMaxUnasked;
    if (overrun_) return;
    unasked_.push_back(std::move(line));
    has_unasked_.signal();
}

std::string QtestServer::take_unasked() {
    std::vector<std::string> lines;
    {
        const std::lock_guard lock(unasked_mutex_);
        if (unasked_.empty()) return {};  // signalled only together with a line
        has_unasked_.consume();
        lines.swap(unasked_);
    }
    std::string text;
    for (const std::string& line : lines) {
        log("S", std::string_view(line).substr(0, line.size() - 1));
        text += line;
    }
    return text;
}

void QtestServer::forget_unasked() {
    const std::lock_guard lock(unasked_mutex_);
    has_unasked_.consume();
    unasked_.clear();
    overrun_ = false;
}

bool QtestServer::overrun() {
    const std::lock_guard lock(unasked_mutex_);
    return overrun_;
}

void QtestServer::thread_main() {
    if (first_client_.valid()) {
        const UniqueFd client = std::move(first_client_);
        serve(client.borrow());
    }
    while (listener_.valid() && wait_for(listener_.borrow(), POLLIN)) {
        // A client that has gone again is nobody's problem.
        if (const auto client = accept_client(listener_.borrow())) serve(client->borrow());
    }
}

void QtestServer::serve(BorrowedFd client) {
    opened_ = clock_.now();
    log("I", "OPENED");
    std::string input;
    std::array<std::byte, kReadChunk> chunk;
    for (;;) {
        // What was taken last may have been the last that is told: nothing wakes us after that.
        if (overrun()) break;
        const Woken woken = wait_for_work(client);
        if (woken == Woken::ByEnd || overrun()) break;
        if (woken == Woken::ByUnasked) {
            if (!send(client, take_unasked())) break;
            continue;
        }
        const auto got = util::read_fd(client, chunk, "read(qtest)");
        if (!got && got.error().errnum() == EAGAIN) continue;
        if (!got || *got == 0) break;
        const size_t before = input.size();
        input.resize(before + *got);
        std::memcpy(input.data() + before, chunk.data(), *got);
        if (!send(client, handle_lines(input, before))) break;
        if (input.size() > qtest::Protocol::kMaxLine) {
            send(client, "FAIL Line too long\n");
            break;
        }
    }
    protocol_.client_left();
    forget_unasked();
    log("I", "CLOSED");
}

std::string QtestServer::handle_lines(std::string& input, size_t seen) {
    std::string replies;
    size_t begin = 0;
    busy_ = true;
    for (size_t end = 0; (end = input.find('\n', std::max(begin, seen))) != std::string::npos;
         begin = end + 1) {
        const std::string_view line = std::string_view(input).substr(begin, end - begin);
        log("R", line);
        const std::string reply = protocol_.handle(line);
        replies += take_unasked();
        log("S", std::string_view(reply).substr(0, reply.size() - 1));
        replies += reply;
    }
    busy_ = false;
    input.erase(0, begin);
    return replies;
}

bool QtestServer::send(BorrowedFd client, std::string_view text) const {
    ConstBytes rest = bytes_of(text);
    while (!rest.empty()) {
        const auto sent = util::write_fd(client, rest, "write(qtest)");
        if (sent) {
            rest = rest.subspan(*sent);
        } else if (sent.error().errnum() != EAGAIN || !wait_for(client, POLLOUT)) {
            return false;
        }
    }
    return true;
}

void QtestServer::log(std::string_view kind, std::string_view text) {
    if (!log_.valid()) return;
    const std::chrono::duration<double> since = clock_.now() - opened_;
    const std::string line = fmt::format("[{} +{:.6f}] {}\n", kind, since.count(), text);
    // A full disk must not end the test that the log was to explain.
    [[maybe_unused]] const auto written = util::write_fd(log_.borrow(), bytes_of(line), "log");
}

}  // namespace ferry::vmm
