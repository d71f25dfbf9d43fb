// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/monitor/qmp-client.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace ferry::test {

using monitor::Json;

namespace {
constexpr int kLimitMs = 60'000;  // only reached by a broken test
constexpr std::string_view kEnd = "<end>";
}  // namespace

std::pair<UniqueFd, UniqueFd> socket_pair() {
    std::array<int, 2> fds{-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void QmpClient::send(std::string_view text) {
    EXPECT_EQ(::send(fd_.raw(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
}

void QmpClient::send_with_fds(std::string_view text, std::span<const BorrowedFd> fds) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    std::string control(CMSG_SPACE(fds.size() * sizeof(int)), '\0');
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    for (size_t i = 0; i < fds.size(); ++i) {
        const int raw = fds[i].raw();
        std::memcpy(CMSG_DATA(header) + i * sizeof(int), &raw, sizeof raw);
    }
    EXPECT_EQ(::sendmsg(fd_.raw(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

bool QmpClient::fill() {
    pollfd waiting{fd_.raw(), POLLIN, 0};
    if (::poll(&waiting, 1, kLimitMs) <= 0) return false;
    std::array<char, 4096> buffer;
    const ssize_t count = ::recv(fd_.raw(), buffer.data(), buffer.size(), 0);
    if (count <= 0) return false;
    input_.append(buffer.data(), static_cast<size_t>(count));
    return true;
}

std::string QmpClient::line() {
    std::string text = until("\r\n");
    if (text.ends_with("\r\n")) text.resize(text.size() - 2);
    return text;
}

std::string QmpClient::until(std::string_view text) {
    for (;;) {
        const size_t at = input_.find(text);
        if (at != std::string::npos) {
            std::string out = input_.substr(0, at + text.size());
            input_.erase(0, out.size());
            return out;
        }
        if (!fill()) return std::exchange(input_, {}) + std::string(kEnd);
    }
}

void QmpClient::negotiate() {
    EXPECT_TRUE(next().contains("QMP"));
    EXPECT_EQ(call({{"execute", "qmp_capabilities"}}), Json({{"return", Json::object()}}));
}

Json QmpClient::note_next() {
    const std::string text = line();
    if (text.ends_with(kEnd)) return nullptr;
    Json message = Json::parse(text);
    if (!message.contains("event")) {
        history_.emplace_back("reply");
        return message;
    }
    history_.push_back(message["event"]);
    if (message["event"] == "MIGRATION") {
        history_.back() += " " + message["data"]["status"].get<std::string>();
    }
    return message;
}

Json QmpClient::call(const Json& request) {
    send(request.dump());
    for (;;) {
        Json message = note_next();
        if (!message.contains("event")) return message;
        events_.push_back(std::move(message));
    }
}

Json QmpClient::event(std::string_view name) {
    for (auto at = events_.begin(); at != events_.end(); ++at) {
        if ((*at)["event"] != name) continue;
        Json found = std::move(*at);
        events_.erase(at);
        return found;
    }
    for (;;) {
        Json message = note_next();
        if (message.is_null()) return message;
        if (!message.contains("event")) {
            ADD_FAILURE() << "a reply instead of " << name << ": " << message;
            return nullptr;
        }
        if (message["event"] == name) return message;
        events_.push_back(std::move(message));
    }
}

}  // namespace ferry::test
