// SPDX-License-Identifier: BSD-2-Clause
#include "migration/channel-resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>

#include "util/syscall.h"
#include "util/tcp-port.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

int family_number(TcpAddress::Family family) {
    switch (family) {
        case TcpAddress::Family::Any: return AF_UNSPEC;
        case TcpAddress::Family::Ipv4: return AF_INET;
        case TcpAddress::Family::Ipv6: return AF_INET6;
    }
    return AF_UNSPEC;
}

enum class Hosts : uint8_t { NumbersOnly, Names };

struct Lookup {
    int status = 0;  // EAI_*
    int errnum = 0;  // with EAI_SYSTEM
    std::vector<SocketAddress> addresses;
};

Lookup look_up(const TcpAddress& address, ResolveFor purpose, Hosts hosts) {
    addrinfo hints{};
    hints.ai_family = family_number(address.family);
    hints.ai_socktype = SOCK_STREAM;
    if (purpose == ResolveFor::Listen) hints.ai_flags |= AI_PASSIVE;
    if (hosts == Hosts::NumbersOnly) hints.ai_flags |= AI_NUMERICHOST;
    addrinfo* list = nullptr;
    Lookup result;
    if (!util::check_tcp_port(address.port)) {
        result.status = EAI_SERVICE;
        return result;
    }
    result.status = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                  address.port.c_str(), &hints, &list);
    if (result.status != 0) {
        result.errnum = result.status == EAI_SYSTEM ? util::errno_error({}).errnum() : 0;
        return result;
    }
    for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
        if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
        SocketAddress& found = result.addresses.emplace_back();
        std::memcpy(&found.storage, at->ai_addr, at->ai_addrlen);
        found.length = at->ai_addrlen;
    }
    ::freeaddrinfo(list);
    if (result.addresses.empty()) result.status = EAI_NONAME;
    return result;
}

Result<std::vector<SocketAddress>> finish(Lookup lookup, const TcpAddress& address) {
    if (lookup.status == 0) return std::move(lookup.addresses);
    const std::string text =
        fmt::format("address resolution failed for {}", host_and_port(address));
    if (lookup.errnum != 0) return make_errno(lookup.errnum, "{}", text);
    return make_error(ErrorKind::InvalidArgument, "{}: {}", text, ::gai_strerror(lookup.status));
}

// What the resolving thread and the waiting one share; the last of them frees it.
struct Request {
    Request(TcpAddress wanted, ResolveFor wanted_for, util::EventFd event)
        : address(std::move(wanted)), purpose(wanted_for), done(std::move(event)) {}
    const TcpAddress address;
    const ResolveFor purpose;
    const util::EventFd done;
    Lookup lookup;  // complete once the thread has ended
};

}  // namespace

Result<SocketAddress> unix_socket_address(const UnixAddress& wanted) {
    const std::string& path = wanted.path;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.find('\0') != std::string::npos) {
        return make_error(ErrorKind::InvalidArgument, "invalid Unix socket address");
    }
    if (path.size() >= sizeof(address.sun_path)) {
        return make_error(ErrorKind::InvalidArgument,
                          "UNIX socket path '{}' is too long: must be less than {} bytes", path,
                          sizeof(address.sun_path));
    }
    // A zero byte in front makes a name abstract; one more that ends it would be part of it.
    const size_t begin = wanted.is_abstract() ? 1 : 0;
    std::memcpy(address.sun_path + begin, path.data(), path.size());
    SocketAddress result;
    std::memcpy(&result.storage, &address, sizeof(address));
    size_t length = sizeof(address);
    if (wanted.space == UnixAddress::Space::Abstract) {
        length = offsetof(sockaddr_un, sun_path) + begin + path.size();
    }
    result.length = static_cast<socklen_t>(length);
    return result;
}

std::string host_and_port(const TcpAddress& address) {
    if (address.host.find(':') != std::string::npos) {
        return fmt::format("[{}]:{}", address.host, address.port);
    }
    return fmt::format("{}:{}", address.host, address.port);
}

Result<std::vector<SocketAddress>> resolve(const TcpAddress& address, ResolveFor purpose) {
    return finish(look_up(address, purpose, Hosts::Names), address);
}

Result<std::vector<SocketAddress>> resolve(const TcpAddress& address, ResolveFor purpose,
                                           const util::EventFd& cancel) {
    if (Lookup at_once = look_up(address, purpose, Hosts::NumbersOnly);
        at_once.status != EAI_NONAME) {
        return finish(std::move(at_once), address);
    }
    MIG_TRY(util::EventFd done, util::EventFd::create());
    const auto request = std::make_shared<Request>(address, purpose, std::move(done));
    MIG_TRY(std::jthread thread, util::start_thread("mig/resolve", [request](std::stop_token) {
                request->lookup = look_up(request->address, request->purpose, Hosts::Names);
                request->done.signal();
            }));
    pollfd fds[] = {{request->done.fd().raw(), POLLIN, 0}, {cancel.fd().raw(), POLLIN, 0}};
    const auto polled = util::poll_fds(fds, std::size(fds), -1);
    if (!polled || fds[1].revents != 0) {
        thread.detach();
        if (!polled) return polled.error();
        return make_error(ErrorKind::Cancelled, "resolving {} was cancelled",
                          host_and_port(address));
    }
    thread.join();
    return finish(std::move(request->lookup), address);
}

// The port stands in the same place in both families.
static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));

uint16_t port_of(const SocketAddress& address) {
    sockaddr_in fields{};
    std::memcpy(&fields, &address.storage, sizeof(fields));
    return ntohs(fields.sin_port);
}

void set_port(SocketAddress& address, uint16_t port) {
    sockaddr_in fields{};
    std::memcpy(&fields, &address.storage, sizeof(fields));
    fields.sin_port = htons(port);
    std::memcpy(&address.storage, &fields, sizeof(fields));
}

Result<TcpAddress> numeric_address(const SocketAddress& address) {
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    const int status = ::getnameinfo(address.get(), address.length, host, sizeof(host), port,
                                     sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    if (status != 0) {
        return make_error(ErrorKind::Internal, "getnameinfo: {}", ::gai_strerror(status));
    }
    return TcpAddress{.host = host,
                      .port = port,
                      .family = address.family() == AF_INET6 ? TcpAddress::Family::Ipv6
                                                             : TcpAddress::Family::Ipv4};
}

}  // namespace ferry::migration
