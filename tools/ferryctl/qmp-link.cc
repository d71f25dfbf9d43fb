// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/qmp-link.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "monitor/transport.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::ferryctl {

namespace {
// A monitor that already has a client greets nobody else.
constexpr int kGreetingLimitMs = 10'000;

Result<UniqueFd> reach(const util::CharAddress& address, const std::string& socket,
                       const QmpLink::TryAgain& try_again) {
    for (unsigned attempts = 1;; ++attempts) {
        auto fd = util::open_char_socket(address);
        const int errnum = fd ? 0 : fd.error().errnum();
        const bool nobody_there = errnum == ENOENT || errnum == ECONNREFUSED;
        if (!nobody_there || !try_again || !try_again(socket, attempts)) return fd;
    }
}

}  // namespace

std::string text_of(const Json& object, const char* name, std::string fallback) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_string() ? found->get<std::string>()
                                                       : std::move(fallback);
}

uint64_t number_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found != object.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

Result<std::unique_ptr<QmpLink>> QmpLink::connect(const std::string& socket,
                                                  const TryAgain& try_again) {
    const bool has_kind = socket.starts_with("unix:") || socket.starts_with("tcp:");
    MIG_TRY(auto address, util::parse_char_address(has_kind ? socket : "unix:" + socket));
    address.side = util::CharAddress::Side::Connect;  // whatever it says behind the path
    MIG_TRY(UniqueFd fd, reach(address, socket, try_again));
    std::unique_ptr<QmpLink> link(new QmpLink(std::move(fd), socket));
    pollfd greeted{link->fd_.raw(), POLLIN, 0};
    MIG_TRY(const int ready, util::poll_fds(&greeted, 1, kGreetingLimitMs));
    if (ready == 0) {
        return make_error(ErrorKind::PeerFailed,
                          "{}: the monitor does not answer; does it have another client?", socket);
    }
    MIG_TRY(const Json greeting, link->receive());
    if (!greeting.is_object() || !greeting.contains("QMP")) {
        return make_error(ErrorKind::Protocol, "{}: not a QMP monitor", socket);
    }
    MIG_CHECK(link->call("qmp_capabilities"), "{}: negotiation", socket);
    return link;
}

Result<> QmpLink::send(std::string_view text) {
    while (!text.empty()) {
        MIG_TRY(const int count,
                util::check_call(::send(fd_.raw(), text.data(), text.size(), MSG_NOSIGNAL),
                                 "sending a request"),
                "{}", name_);
        text.remove_prefix(static_cast<size_t>(count));
    }
    return {};
}

Result<Json> QmpLink::receive() {
    for (;;) {
        ConstBytes rest = input_;
        auto text = framer_.next(rest);
        input_.erase(input_.begin(), input_.end() - static_cast<ptrdiff_t>(rest.size()));
        if (text) {
            MIG_TRY(const std::string complete, std::move(*text), "{}", name_);
            MIG_TRY(Json message, monitor::parse_json(complete), "{}", name_);
            return message;
        }
        std::array<std::byte, 16 * 1024> buffer;
        MIG_TRY(const size_t count, util::read_fd(fd_.borrow(), buffer, "reading a reply"), "{}",
                name_);
        if (count == 0) {
            return make_error(ErrorKind::PeerClosed, "{}: the VM closed the connection", name_);
        }
        input_.insert(input_.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(count));
    }
}

Result<Json> QmpLink::call(std::string_view command, const Json& arguments) {
    return request({{"execute", command}, {"arguments", arguments}});
}

Result<Json> QmpLink::request(const Json& request) {
    MIG_CHECK(send(monitor::to_text(request) + "\n"));
    for (;;) {
        MIG_TRY(Json message, receive());
        if (!message.is_object()) {
            return make_error(ErrorKind::Protocol, "{}: a reply that is no object", name_);
        }
        if (message.contains("event")) continue;
        if (message.contains("return")) return message["return"];
        const Json error = message.contains("error") ? message["error"] : Json();
        return make_error(ErrorKind::PeerFailed, "{}",
                          text_of(error, "desc", monitor::to_text(message)));
    }
}

}  // namespace ferry::ferryctl
