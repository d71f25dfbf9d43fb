// SPDX-License-Identifier: BSD-2-Clause
// Addresses as text: what `migrate` and `migrate-incoming` accept.
#include <array>
#include <charconv>

#include "migration/channel.h"
#include "util/size-text.h"
#include "util/tcp-port.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr std::string_view kOffsetOption = ",offset=";
constexpr std::array<std::string_view, 2> kShell = {"/bin/sh", "-c"};

bool take_prefix(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
}

// Removes and returns what stands before `separator`, or everything when that is not there.
std::string_view take_until(std::string_view& text, char separator) {
    const std::string_view part = text.substr(0, text.find(separator));
    text.remove_prefix(part.size());
    return part;
}

template <typename Int>
std::optional<Int> parse_whole(std::string_view text, int base = 10) {
    Int value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// --- tcp:

struct TcpFlags {
    std::optional<bool> ipv4;
    std::optional<bool> ipv6;
};

// A flag stands alone for "on".
std::optional<bool> parse_flag(std::optional<std::string_view> value) {
    if (!value || *value == "on") return true;
    if (*value == "off") return false;
    return std::nullopt;
}

// False when the option is unknown or its value wrong.
bool apply_option(std::string_view option, TcpAddress& address, TcpFlags& flags) {
    std::optional<std::string_view> value;
    if (const size_t equals = option.find('='); equals != std::string_view::npos) {
        value = option.substr(equals + 1);
        option = option.substr(0, equals);
    }
    if (option == "to") {
        address.last_port = value ? parse_whole<uint16_t>(*value) : std::nullopt;
        return address.last_port.has_value();
    }
    const std::optional<bool> on = parse_flag(value);
    if (!on) return false;
    if (option == "ipv4") {
        flags.ipv4 = on;
    } else if (option == "ipv6") {
        flags.ipv6 = on;
    } else if (option == "keep-alive") {
        address.keep_alive = *on;
    } else {
        return false;
    }
    return true;
}

// Asking for one family excludes the other; switching one off asks for the other.
Result<TcpAddress::Family> family_of(const TcpFlags& flags) {
    using Family = TcpAddress::Family;
    if (flags.ipv4 == false && flags.ipv6 == false) {
        return make_error(ErrorKind::InvalidArgument, "Cannot disable IPv4 and IPv6 at same time");
    }
    if (flags.ipv4 == flags.ipv6) return Family::Any;
    if (flags.ipv6 == true || flags.ipv4 == false) return Family::Ipv6;
    return Family::Ipv4;
}

// False when `text` does not begin with a host and a colon.
bool take_host(std::string_view& text, std::string& host) {
    if (take_prefix(text, "[")) {
        host = take_until(text, ']');
        return !host.empty() && take_prefix(text, "]:");
    }
    host = take_until(text, ':');
    return host.find(',') == std::string::npos && take_prefix(text, ":");
}

Result<MigrationAddress> parse_tcp(const std::string_view whole) {
    std::string_view text = whole;
    TcpAddress address;
    const bool has_host = take_host(text, address.host);
    address.port = take_until(text, ',');
    if (!has_host || address.port.empty() || address.port.find(':') != std::string::npos) {
        return make_error(ErrorKind::InvalidArgument, "error parsing address '{}'", whole);
    }
    MIG_CHECK(util::check_tcp_port(address.port), "error parsing address '{}'", whole);
    TcpFlags flags;
    while (take_prefix(text, ",")) {
        const std::string_view option = take_until(text, ',');
        if (option == "mptcp=off") continue;
        if (option == "mptcp" || option == "mptcp=on") {
            return make_error(ErrorKind::Unsupported, "Parameter 'mptcp' is not supported");
        }
        if (!apply_option(option, address, flags)) {
            return make_error(ErrorKind::InvalidArgument,
                              "error parsing address '{}': bad option '{}'", whole, option);
        }
    }
    MIG_TRY(address.family, family_of(flags));
    return MigrationAddress(std::move(address));
}

// --- file:

Result<MigrationAddress> parse_file(std::string_view text) {
    FileAddress address;
    const size_t option = text.find(kOffsetOption);
    address.path = text.substr(0, option);
    if (option != std::string_view::npos) {
        const std::string_view value = text.substr(option + kOffsetOption.size());
        const auto offset = util::parse_size_text(value);
        if (!offset) {
            return Error(ErrorKind::InvalidArgument,
                         fmt::format("file URI has bad offset {}", value), offset.error());
        }
        address.offset = *offset;
    }
    return MigrationAddress(std::move(address));
}

bool runs_in_shell(const ExecAddress& address) {
    return address.args.size() == kShell.size() + 1 && address.args[0] == kShell[0] &&
           address.args[1] == kShell[1];
}

struct ToText {
    std::string operator()(const TcpAddress& tcp) const {
        const bool bracketed = tcp.host.find(':') != std::string::npos;
        const std::string host = bracketed ? fmt::format("[{}]", tcp.host) : tcp.host;
        std::string text = fmt::format("tcp:{}:{}", host, tcp.port);
        if (tcp.last_port) text += fmt::format(",to={}", *tcp.last_port);
        switch (tcp.family) {
            case TcpAddress::Family::Any: break;
            case TcpAddress::Family::Ipv4: text += ",ipv4"; break;
            case TcpAddress::Family::Ipv6: text += ",ipv6"; break;
        }
        if (tcp.keep_alive) text += ",keep-alive";
        return text;
    }
    std::string operator()(const UnixAddress& address) const {
        switch (address.space) {
            case UnixAddress::Space::Files: break;
            case UnixAddress::Space::Abstract: return "unix:" + address.path + ",abstract";
            case UnixAddress::Space::AbstractPadded:
                return "unix:" + address.path + ",abstract,tight=off";
        }
        return "unix:" + address.path;
    }
    std::string operator()(const FdAddress& address) const { return "fd:" + address.name; }
    std::string operator()(const ExecAddress& address) const {
        if (runs_in_shell(address)) return "exec:" + address.args.back();
        return fmt::format("exec:{}", fmt::join(address.args, " "));
    }
    std::string operator()(const FileAddress& address) const {
        if (address.offset == 0) return "file:" + address.path;
        return fmt::format("file:{}{}{}", address.path, kOffsetOption, address.offset);
    }
};

}  // namespace

Result<MigrationAddress> parse_migration_uri(std::string_view uri) {
    // Would end every path and name early, silently.
    if (uri.find('\0') != std::string_view::npos) {
        return make_error(ErrorKind::InvalidArgument, "migration address contains a NUL byte");
    }
    std::string_view text = uri;
    if (take_prefix(text, "tcp:")) return parse_tcp(text);
    if (take_prefix(text, "unix:")) {
        if (text.empty()) {
            return make_error(ErrorKind::InvalidArgument, "invalid Unix socket address");
        }
        return MigrationAddress(UnixAddress{std::string(text)});
    }
    if (take_prefix(text, "fd:")) {
        if (text.empty()) {
            return make_error(ErrorKind::InvalidArgument, "invalid file descriptor address");
        }
        return MigrationAddress(FdAddress{std::string(text)});
    }
    if (take_prefix(text, "exec:")) {
        return MigrationAddress(
            ExecAddress{{std::string(kShell[0]), std::string(kShell[1]), std::string(text)}});
    }
    if (take_prefix(text, "file:")) return parse_file(text);
    if (take_prefix(text, "vsock:")) {
        return make_error(ErrorKind::Unsupported, "Migration over vsock is not supported");
    }
    if (take_prefix(text, "rdma:")) {
        return make_error(ErrorKind::Unsupported, "Migration over RDMA is not supported");
    }
    return make_error(ErrorKind::InvalidArgument, "unknown migration protocol: {}", uri);
}

std::string to_string(const MigrationAddress& address) {
    return std::visit(ToText(), address);
}

bool opens_at_once(const MigrationAddress& address) {
    return !std::holds_alternative<TcpAddress>(address) &&
           !std::holds_alternative<UnixAddress>(address);
}

}  // namespace ferry::migration
