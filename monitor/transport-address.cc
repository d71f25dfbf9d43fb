// SPDX-License-Identifier: BSD-2-Clause
// Where a monitor's client is: parsing the command line's form, connecting or listening.
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "monitor/transport.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

// Splits at commas; ",," is a comma.
std::vector<std::string> split_options(std::string_view text) {
    std::vector<std::string> parts(1);
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            parts.back() += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            parts.back() += text[++i];
        } else {
            parts.emplace_back();
        }
    }
    return parts;
}

Result<> apply_option(MonitorAddress& address, const std::string& option) {
    using Side = MonitorAddress::Side;
    using Wait = MonitorAddress::Wait;
    if (option == "server=on" || option == "server") {
        address.side = Side::Listen;
    } else if (option == "server=off") {
        address.side = Side::Connect;
    } else if (option == "wait=on" || option == "wait") {
        address.wait = Wait::ForClient;
    } else if (option == "wait=off" || option == "nowait") {
        address.wait = Wait::No;
    } else if (!option.empty()) {
        return make_error(ErrorKind::InvalidArgument, "Invalid parameter '{}'", option);
    }
    return {};
}

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path) {
        return make_error(ErrorKind::InvalidArgument,
                          "UNIX socket path '{}' must have 1 to {} bytes", path,
                          sizeof address.sun_path - 1);
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<UniqueFd> open_socket(int family, int protocol) {
    MIG_TRY(const int fd, util::check_call(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol),
                                           "socket(monitor)"));
    return UniqueFd(fd);
}

// The generic form that the socket calls want.
const sockaddr* as_sockaddr(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(
        &address);  // NOLINT(cppcoreguidelines-pro-type-reinterpret-cast): the C API's own idiom
}

Result<UniqueFd> bind_or_connect(UniqueFd fd, const sockaddr* address, socklen_t length,
                                 MonitorAddress::Side side, std::string_view name) {
    if (side == MonitorAddress::Side::Connect) {
        MIG_CHECK(util::check_call(::connect(fd.raw(), address, length), "connect"), "{}", name);
        return fd;
    }
    constexpr int kBacklog = 1;
    MIG_CHECK(util::check_call(::bind(fd.raw(), address, length), "bind"), "{}", name);
    MIG_CHECK(util::check_call(::listen(fd.raw(), kBacklog), "listen"), "{}", name);
    return fd;
}

Result<UniqueFd> open_unix(const MonitorAddress& address) {
    MIG_TRY(const sockaddr_un where, unix_address(address.path));
    if (address.side == MonitorAddress::Side::Listen) {
        // What an earlier process left behind, but nothing else that has the name.
        struct stat info{};
        if (::lstat(address.path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
            ::unlink(address.path.c_str());
        }
    }
    MIG_TRY(UniqueFd fd, open_socket(AF_UNIX, 0));
    return bind_or_connect(std::move(fd), as_sockaddr(where), sizeof where, address.side,
                           "unix:" + address.path);
}

Result<UniqueFd> open_tcp(const MonitorAddress& address) {
    const bool listening = address.side == MonitorAddress::Side::Listen;
    const std::string name = fmt::format("tcp:{}:{}", address.host, address.port);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = listening ? AI_PASSIVE : 0;
    addrinfo* list = nullptr;
    const int failed = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                     address.port.c_str(), &hints, &list);
    if (failed != 0) {
        return make_error(ErrorKind::InvalidArgument, "{}: {}", name, ::gai_strerror(failed));
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    Result<UniqueFd> opened = make_error(ErrorKind::InvalidArgument, "{}: no address", name);
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
        auto fd = open_socket(entry->ai_family, entry->ai_protocol);
        if (!fd) continue;
        if (listening) {
            const int on = 1;
            MIG_CHECK(util::check_call(
                ::setsockopt(fd->raw(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt"));
        }
        opened =
            bind_or_connect(std::move(*fd), entry->ai_addr, entry->ai_addrlen, address.side, name);
        if (opened) return opened;
    }
    return opened;
}

}  // namespace

Result<MonitorAddress> parse_monitor_address(std::string_view text) {
    const std::vector<std::string> parts = split_options(text);
    const std::string& main = parts.front();
    MonitorAddress address;
    if (main == "stdio") {
        address.kind = MonitorAddress::Kind::Stdio;
    } else if (main.starts_with("unix:")) {
        address.kind = MonitorAddress::Kind::Unix;
        address.path = main.substr(5);
        MIG_CHECK(unix_address(address.path));
    } else if (main.starts_with("tcp:")) {
        address.kind = MonitorAddress::Kind::Tcp;
        const size_t colon = main.rfind(':');
        if (colon < 4 || colon + 1 == main.size()) {
            return make_error(ErrorKind::InvalidArgument, "error parsing address '{}'", main);
        }
        address.host = main.substr(4, colon - 4);
        if (address.host.starts_with('[') && address.host.ends_with(']')) {
            address.host = address.host.substr(1, address.host.size() - 2);
        }
        address.port = main.substr(colon + 1);
    } else {
        return make_error(ErrorKind::InvalidArgument,
                          "'{}' is not a monitor address (stdio, unix:PATH, tcp:HOST:PORT)", text);
    }
    address.wait = MonitorAddress::Wait::ForClient;
    for (size_t i = 1; i < parts.size(); ++i) {
        MIG_CHECK(apply_option(address, parts[i]), "'{}'", text);
    }
    if (address.side == MonitorAddress::Side::Connect) address.wait = MonitorAddress::Wait::No;
    return address;
}

Result<UniqueFd> connect_monitor(const MonitorAddress& address) {
    if (address.kind == MonitorAddress::Kind::Stdio) {
        return make_error(ErrorKind::InvalidArgument, "stdio is no address to connect to");
    }
    MonitorAddress client = address;
    client.side = MonitorAddress::Side::Connect;
    return client.kind == MonitorAddress::Kind::Unix ? open_unix(client) : open_tcp(client);
}

Result<std::unique_ptr<MonitorTransport>> open_monitor_transport(system::MainLoop& loop,
                                                                 const MonitorAddress& address) {
    if (address.kind == MonitorAddress::Kind::Stdio) return make_stdio_transport(loop);
    const bool is_unix = address.kind == MonitorAddress::Kind::Unix;
    MIG_TRY(UniqueFd fd, is_unix ? open_unix(address) : open_tcp(address), "monitor");
    if (address.side == MonitorAddress::Side::Connect) {
        return make_connected_transport(loop, std::move(fd));
    }
    if (address.wait == MonitorAddress::Wait::ForClient) {
        pollfd waiting{fd.raw(), POLLIN, 0};
        MIG_CHECK(util::poll_fds(&waiting, 1, -1), "monitor: waiting for a client");
    }
    return make_listening_transport(loop, std::move(fd), is_unix ? address.path : "");
}

}  // namespace ferry::monitor
