// SPDX-License-Identifier: BSD-2-Clause
// The transport for what the command line says.
#include "monitor/transport.h"
#include "util/try.h"

namespace ferry::monitor {

using util::CharAddress;

namespace {

Result<std::unique_ptr<MonitorTransport>> open_socket_transport(system::MainLoop& loop,
                                                                const CharAddress& address) {
    MIG_TRY(UniqueFd fd, util::open_char_socket(address), "monitor");
    if (address.side == CharAddress::Side::Connect) {
        return make_connected_transport(loop, std::move(fd));
    }
    if (address.wait == CharAddress::Wait::ForClient) {
        MIG_CHECK(util::wait_for_char_client(fd.borrow()), "monitor: waiting for a client");
    }
    return make_listening_transport(loop, std::move(fd), address.path);
}

}  // namespace

Result<std::unique_ptr<MonitorTransport>> open_monitor_transport(system::MainLoop& loop,
                                                                 const CharAddress& address) {
    switch (address.kind) {
        case CharAddress::Kind::Stdio: return make_stdio_transport(loop);
        case CharAddress::Kind::Fd: return make_connected_transport(loop, UniqueFd(address.fd));
        case CharAddress::Kind::Unix:
        case CharAddress::Kind::Tcp: return open_socket_transport(loop, address);
        case CharAddress::Kind::Null:
        case CharAddress::Kind::File: break;
    }
    return make_error(ErrorKind::Unsupported, "a monitor can't be at {}: it takes input too",
                      to_string(address));
}

}  // namespace ferry::monitor
