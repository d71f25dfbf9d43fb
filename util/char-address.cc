// SPDX-License-Identifier: BSD-2-Clause
// What -serial, -qmp and their like say, taken apart.
#include "util/char-address.h"

#include <sys/un.h>

#include <optional>
#include <vector>

#include "util/tcp-port.h"
#include "util/try.h"

namespace ferry::util {

namespace {

// Splits at commas; ",," is a comma.
std::vector<std::string> split_at_commas(std::string_view text) {
    std::vector<std::string> parts(1);
    for (size_t i = 0; i < text.size(); ++i) {
        const bool doubled = text.substr(i).starts_with(",,");
        if (text[i] == ',' && !doubled) {
            parts.emplace_back();
        } else {
            parts.back() += text[i];
            if (doubled) ++i;
        }
    }
    return parts;
}

// "NAME", "NAME=on", "NAME=off"; nothing when it is another option.
std::optional<bool> switched(std::string_view option, std::string_view name) {
    if (!option.starts_with(name)) return std::nullopt;
    const std::string_view value = option.substr(name.size());
    if (value.empty() || value == "=on") return true;
    if (value == "=off") return false;
    return std::nullopt;
}

Result<> apply_socket_options(CharAddress& address, const std::vector<std::string>& parts) {
    using Side = CharAddress::Side;
    using Wait = CharAddress::Wait;
    std::optional<bool> wait;
    for (size_t i = 1; i < parts.size(); ++i) {
        if (const auto server = switched(parts[i], "server")) {
            address.side = *server ? Side::Listen : Side::Connect;
        } else if (const auto waits = switched(parts[i], "wait")) {
            wait = waits;
        } else if (parts[i] == "nowait") {
            wait = false;
        } else if (!switched(parts[i], "nodelay")) {  // that is how it is done anyway
            return make_error(ErrorKind::InvalidArgument, "Invalid parameter '{}'", parts[i]);
        }
    }
    const bool listens = address.side == Side::Listen;
    if (wait && !listens) {
        return make_error(ErrorKind::InvalidArgument,
                          "'wait' option is incompatible with socket in client connect mode");
    }
    address.wait = listens && wait.value_or(true) ? Wait::ForClient : Wait::No;
    return {};
}

Result<CharAddress> parse_unix(std::string_view rest) {
    const std::vector<std::string> parts = split_at_commas(rest);
    CharAddress address{.kind = CharAddress::Kind::Unix};
    address.path = parts.front();
    constexpr size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
    if (address.path.empty() || address.path.size() > kLongest) {
        return make_error(ErrorKind::InvalidArgument,
                          "UNIX socket path '{}' must have 1 to {} bytes", address.path, kLongest);
    }
    MIG_CHECK(apply_socket_options(address, parts));
    return address;
}

Result<CharAddress> parse_tcp(std::string_view rest) {
    const std::vector<std::string> parts = split_at_commas(rest);
    const std::string& place = parts.front();
    const size_t colon = place.rfind(':');
    if (colon == std::string::npos || colon + 1 == place.size()) {
        return make_error(ErrorKind::InvalidArgument, "'{}' is not HOST:PORT", place);
    }
    CharAddress address{.kind = CharAddress::Kind::Tcp};
    address.host = place.substr(0, colon);
    address.port = place.substr(colon + 1);
    MIG_CHECK(check_tcp_port(address.port));
    if (address.host.starts_with('[') && address.host.ends_with(']')) {
        address.host = address.host.substr(1, address.host.size() - 2);
    }
    MIG_CHECK(apply_socket_options(address, parts));
    return address;
}

}  // namespace

Result<CharAddress> parse_char_address(std::string_view text) {
    using Kind = CharAddress::Kind;
    const auto after = [text](std::string_view prefix) { return text.substr(prefix.size()); };
    if (text == "null") return CharAddress{};
    if (text == "stdio") return CharAddress{.kind = Kind::Stdio};
    if (text.starts_with("file:")) {
        // To its end: a file's name may hold commas.
        CharAddress address{.kind = Kind::File, .path = std::string(after("file:"))};
        if (!address.path.empty()) return address;
        return make_error(ErrorKind::InvalidArgument, "'{}': a file has a name: file:PATH", text);
    }
    Result<CharAddress> address =
        make_error(ErrorKind::InvalidArgument,
                   "not one of null, stdio, file:PATH, unix:PATH[,server=on][,wait=off], "
                   "tcp:HOST:PORT[,server=on][,wait=off]");
    if (text.starts_with("unix:")) address = parse_unix(after("unix:"));
    if (text.starts_with("tcp:")) address = parse_tcp(after("tcp:"));
    if (!address) return std::move(address).error().context(fmt::format("'{}'", text));
    return address;
}

std::string to_string(const CharAddress& address) {
    switch (address.kind) {
        case CharAddress::Kind::Null: return "null";
        case CharAddress::Kind::Stdio: return "stdio";
        case CharAddress::Kind::File: return "file:" + address.path;
        case CharAddress::Kind::Unix: return "unix:" + address.path;
        case CharAddress::Kind::Tcp: return fmt::format("tcp:{}:{}", address.host, address.port);
        case CharAddress::Kind::Fd: return fmt::format("fd {}", address.fd);
    }
    std::unreachable();
}

}  // namespace ferry::util
