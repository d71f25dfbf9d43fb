// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>
#include <array>

#include "monitor/migration-json.h"
#include "util/tcp-port.h"
#include "util/try.h"

namespace ferry::monitor {

using migration::MigrationAddress;

namespace {

Schema channel_types() {
    return Schema::enumeration({"main", "cpr"});
}
Schema transports() {
    return Schema::enumeration({"socket", "exec", "file", "rdma"});
}
Schema socket_types() {
    return Schema::enumeration({"inet", "unix", "vsock", "fd"});
}

// The member that tells which others there are, if it is as it should be.
const std::string* discriminator(const Json& address, const char* name, const Schema& schema) {
    const auto given = address.find(name);
    if (given == address.end() || !given->is_string()) return nullptr;
    const std::string& value = given->get_ref<const std::string&>();
    const bool known = std::ranges::find(schema.values, value) != schema.values.end();
    return known ? &value : nullptr;
}

constexpr auto kOptional = Presence::Optional;

// Of a socket's type.
std::vector<Member> inet_members() {
    return {{"host", {JsonType::String}},
            {"port", {JsonType::String}},
            {"numeric", {JsonType::Bool}, kOptional},
            {"to", {JsonType::Uint16}, kOptional},
            {"ipv4", {JsonType::Bool}, kOptional},
            {"ipv6", {JsonType::Bool}, kOptional},
            {"keep-alive", {JsonType::Bool}, kOptional},
            {"mptcp", {JsonType::Bool}, kOptional}};
}
std::vector<Member> unix_members() {
    return {{"path", {JsonType::String}},
            {"abstract", {JsonType::Bool}, kOptional},
            {"tight", {JsonType::Bool}, kOptional}};
}
std::vector<Member> vsock_members() {
    return {{"cid", {JsonType::String}}, {"port", {JsonType::String}}};
}
std::vector<Member> fd_members() {
    return {{"str", {JsonType::String}}};
}
// Of a transport.
std::vector<Member> exec_members() {
    return {{"args", Schema::array_of({JsonType::String})}};
}
std::vector<Member> file_members() {
    return {{"filename", {JsonType::String}}, {"offset", {JsonType::Uint64}}};
}

Schema address_object() {
    const Schema socket = Schema::one_of("type", {{"inet", Schema::object(inet_members())},
                                                  {"unix", Schema::object(unix_members())},
                                                  {"vsock", Schema::object(vsock_members())},
                                                  {"fd", Schema::object(fd_members())}});
    return Schema::one_of("transport", {{"socket", socket},
                                        {"exec", Schema::object(exec_members())},
                                        {"file", Schema::object(file_members())},
                                        {"rdma", Schema::object(inet_members())}});
}

std::vector<Member> channel_schema() {
    return {{"channel-type", channel_types()}, {"addr", address_object()}};
}

// An option that would change what is connected, but cannot here.
Result<> refuse_when_on(const Json& address, const char* name) {
    if (bool_or(address, name, false)) {
        return make_error(ErrorKind::Unsupported, "Parameter '{}' is not supported", name);
    }
    return {};
}

// Checks the members of `address` against those common to all and the given ones.
Result<> check_variant(const Json& address, const std::string& path, std::vector<Member> members) {
    members.insert(members.begin(), {"transport", transports()});
    return check_members(members, address, path);
}
Result<> check_socket(const Json& address, const std::string& path, std::vector<Member> members) {
    members.insert(members.begin(), {"type", socket_types()});
    return check_variant(address, path, std::move(members));
}

Result<MigrationAddress> inet_address(const Json& address, const std::string& path) {
    MIG_CHECK(check_socket(address, path, inet_members()));
    MIG_CHECK(refuse_when_on(address, "mptcp"));
    MIG_CHECK(util::check_tcp_port(address["port"].get_ref<const std::string&>()), "Parameter '{}'",
              path);
    using Family = migration::TcpAddress::Family;
    // One that is named excludes the other, unless that is named, too; "off" asks for the other.
    const bool ipv4 = bool_or(address, "ipv4", !bool_or(address, "ipv6", false));
    const bool ipv6 = bool_or(address, "ipv6", !bool_or(address, "ipv4", false));
    if (!ipv4 && !ipv6) {
        return make_error(ErrorKind::InvalidArgument,
                          "Cannot disable IPv4 and IPv6 at the same time");
    }
    const Family family = ipv4 && ipv6 ? Family::Any : ipv4 ? Family::Ipv4 : Family::Ipv6;
    migration::TcpAddress tcp{address["host"].get<std::string>(),
                              address["port"].get<std::string>(), family};
    if (address.contains("to")) tcp.last_port = address["to"].get<uint16_t>();
    tcp.keep_alive = bool_or(address, "keep-alive", false);
    return tcp;
}

MigrationAddress unix_address(const Json& address) {
    using Space = migration::UnixAddress::Space;
    migration::UnixAddress result{address["path"].get<std::string>()};
    if (bool_or(address, "abstract", false)) {
        result.space = bool_or(address, "tight", true) ? Space::Abstract : Space::AbstractPadded;
    }
    return result;
}

Result<MigrationAddress> socket_address(const Json& address, const std::string& path) {
    const std::string* given = discriminator(address, "type", socket_types());
    if (given == nullptr) return check_socket(address, path, {}).error();
    const std::string& name = *given;
    if (name == "inet") return inet_address(address, path);
    if (name == "unix") {
        MIG_CHECK(check_socket(address, path, unix_members()));
        return unix_address(address);
    }
    if (name == "fd") {
        MIG_CHECK(check_socket(address, path, fd_members()));
        return migration::FdAddress{address["str"].get<std::string>()};
    }
    return make_error(ErrorKind::Unsupported, "Migration over vsock is not supported");
}

Result<MigrationAddress> address_from_object(const Json& address, const std::string& path) {
    const std::string* given = discriminator(address, "transport", transports());
    if (given == nullptr) return check_variant(address, path, {}).error();
    const std::string& transport = *given;
    if (transport == "socket") return socket_address(address, path);
    if (transport == "exec") {
        MIG_CHECK(check_variant(address, path, exec_members()));
        if (address["args"].empty()) {
            return make_error(ErrorKind::InvalidArgument, "Parameter '{}.args' must not be empty",
                              path);
        }
        return migration::ExecAddress{address["args"].get<std::vector<std::string>>()};
    }
    if (transport == "file") {
        MIG_CHECK(check_variant(address, path, file_members()));
        return migration::FileAddress{address["filename"].get<std::string>(),
                                      to_uint64(address["offset"])};
    }
    return make_error(ErrorKind::Unsupported, "Migration over RDMA is not supported");
}

Error no_cpr_channel() {
    return make_error(ErrorKind::Unsupported, "A cpr channel is not supported");
}

Result<MigrationAddress> address_from_channels(const Json& channels, ChannelRule rule) {
    if (rule == ChannelRule::OnlyMain &&
        (channels.size() != 1 || channels[0]["channel-type"] != "main")) {
        return make_error(ErrorKind::InvalidArgument,
                          "Channel list must have only one entry, for type 'main'");
    }
    std::array<const Json*, 2> by_type{};  // main, cpr
    size_t main_index = 0;
    for (size_t i = 0; i < channels.size(); ++i) {
        const std::string type = channels[i]["channel-type"].get<std::string>();
        const Json*& place = by_type[type == "main" ? 0 : 1];
        if (place != nullptr) {
            return make_error(ErrorKind::InvalidArgument, "Channel list has more than one {} entry",
                              type);
        }
        place = &channels[i];
        if (type == "main") main_index = i;
    }
    if (by_type[0] == nullptr) {
        return make_error(ErrorKind::InvalidArgument, "Channel list has no main entry");
    }
    if (by_type[1] != nullptr) return no_cpr_channel();
    return address_from_object((*by_type[0])["addr"], fmt::format("channels[{}].addr", main_index));
}

}  // namespace

std::vector<Member> address_schema() {
    return {{"uri", {JsonType::String}, kOptional},
            {"channels", Schema::array_of(Schema::object(channel_schema())), kOptional}};
}

Result<MigrationAddress> address_from_channel(const Json& channel) {
    if (!channel.is_object()) {
        return make_error(ErrorKind::InvalidArgument, "a channel is a JSON object");
    }
    MIG_CHECK(check_members(channel_schema(), channel, ""));
    if (channel["channel-type"] == "cpr") return no_cpr_channel();
    return address_from_object(channel["addr"], "addr");
}

Result<MigrationAddress> address_from_arguments(const Json& arguments, ChannelRule rule) {
    const bool has_uri = arguments.contains("uri");
    const bool has_channels = arguments.contains("channels") && !arguments["channels"].empty();
    if (has_uri == has_channels) {
        return make_error(ErrorKind::InvalidArgument, "need either 'uri' or 'channels' argument");
    }
    if (has_channels) return address_from_channels(arguments["channels"], rule);
    return migration::parse_migration_uri(arguments["uri"].get<std::string>());
}

}  // namespace ferry::monitor
