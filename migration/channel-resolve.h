// SPDX-License-Identifier: BSD-2-Clause
// From addresses as people write them to those the kernel takes, and back.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "migration/channel.h"

namespace ferry::migration {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;

    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the C API wants it
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    int family() const { return storage.ss_family; }
};

Result<SocketAddress> unix_socket_address(const UnixAddress& address);

// "10.0.0.2:4444", "[::1]:4444"
std::string host_and_port(const TcpAddress& address);

enum class ResolveFor : uint8_t { Connect, Listen };
// In the order to try them, at least one. With names (not numbers) this asks name servers, and
// blocks.
Result<std::vector<SocketAddress>> resolve(const TcpAddress& address, ResolveFor purpose);
// The same; `cancel` wakes it. A library call that is under way then goes on by itself on a
// detached thread, which owns what it touches: name resolution cannot be interrupted.
Result<std::vector<SocketAddress>> resolve(const TcpAddress& address, ResolveFor purpose,
                                           const util::EventFd& cancel);

uint16_t port_of(const SocketAddress& address);  // IPv4 or IPv6
void set_port(SocketAddress& address, uint16_t port);
// An IPv4 or IPv6 address in numbers.
Result<TcpAddress> numeric_address(const SocketAddress& address);

}  // namespace ferry::migration
