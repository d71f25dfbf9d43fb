// SPDX-License-Identifier: BSD-2-Clause
// Addresses as text: what `migrate` and `migrate-incoming` accept.
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>

#include "migration/channel.h"
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
    TcpFlags flags;
    while (take_prefix(text, ",")) {
        const std::string_view option = take_until(text, ',');
        if (!apply_option(option, address, flags)) {
            return make_error(ErrorKind::InvalidArgument,
                              "error parsing address '{}': bad option '{}'", whole, option);
        }
    }
    MIG_TRY(address.family, family_of(flags));
    return MigrationAddress(std::move(address));
}

// --- file:

std::optional<unsigned> shift_of_suffix(char suffix) {
    constexpr std::string_view kSuffixes = "BKMGTPE";  // powers of 1024
    const char upper =
        suffix >= 'a' && suffix <= 'z' ? static_cast<char>(suffix - 'a' + 'A') : suffix;
    const size_t at = kSuffixes.find(upper);
    if (at == std::string_view::npos) return std::nullopt;
    return static_cast<unsigned>(at * 10);
}

// Bytes as decimal or 0x hex, or a decimal number with a suffix and then perhaps a fraction.
// EINVAL or ERANGE when it is none of these.
std::expected<uint64_t, int> parse_size(std::string_view text) {
    const bool hex = take_prefix(text, "0x") || take_prefix(text, "0X");
    uint64_t whole = 0;
    const char* const text_end = text.data() + text.size();
    const auto [end, status] = std::from_chars(text.data(), text_end, whole, hex ? 16 : 10);
    if (status == std::errc::result_out_of_range) return std::unexpected(ERANGE);
    if (status != std::errc()) return std::unexpected(EINVAL);
    text = std::string_view(end, static_cast<size_t>(text_end - end));
    if (text.empty()) return whole;
    if (hex) return std::unexpected(EINVAL);

    std::string_view fraction;
    if (take_prefix(text, ".")) {
        fraction = text.substr(0, text.find_first_not_of("0123456789"));
        text.remove_prefix(fraction.size());
        if (fraction.empty()) return std::unexpected(EINVAL);
    }
    if (text.size() != 1) return std::unexpected(EINVAL);
    const std::optional<unsigned> shift = shift_of_suffix(text.front());
    if (!shift || (*shift == 0 && !fraction.empty())) return std::unexpected(EINVAL);
    if (whole > std::numeric_limits<uint64_t>::max() >> *shift) return std::unexpected(ERANGE);
    // From the last digit to the first, so that every step is exact and fits.
    uint64_t part = 0;
    for (auto digit = fraction.rbegin(); digit != fraction.rend(); ++digit) {
        part = ((static_cast<uint64_t>(*digit - '0') << *shift) + part) / 10;
    }
    return (whole << *shift) + part;
}

Result<MigrationAddress> parse_file(std::string_view text) {
    FileAddress address;
    const size_t option = text.find(kOffsetOption);
    address.path = text.substr(0, option);
    if (option != std::string_view::npos) {
        const std::string_view value = text.substr(option + kOffsetOption.size());
        const auto offset = parse_size(value);
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
    std::string operator()(const UnixAddress& address) const { return "unix:" + address.path; }
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
