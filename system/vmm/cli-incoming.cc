// SPDX-License-Identifier: BSD-2-Clause
// -incoming: a URI, or a channel as JSON or in dotted keys
// ("main,addr.transport=socket,addr.type=unix,addr.path=P").
#include <algorithm>
#include <array>
#include <cctype>

#include "monitor/migration-json.h"
#include "system/vmm/cli-draft.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using migration::MigrationAddress;
using monitor::Json;

// Levels of a dotted key: addr.args.0 has the most.
constexpr size_t kMaxLevels = 3;
constexpr size_t kMaxArguments = 1024;  // of exec
constexpr std::string_view kArguments = "args";
// What is no text, of all the members that an address can have.
constexpr std::array kFlags = {"numeric",  "ipv4",  "ipv6", "keep-alive",
                               "abstract", "tight", "mptcp"};
constexpr std::array kNumbers = {"to", "offset"};

bool is_uri(std::string_view text) {
    const size_t colon = text.find(':');
    return colon != std::string_view::npos &&
           std::ranges::all_of(text.substr(0, colon),
                               [](unsigned char c) { return std::isalpha(c) != 0; });
}

Result<Json> typed(const std::string& key, std::string value) {
    const bool flag = std::ranges::find(kFlags, key) != kFlags.end();
    const bool number = std::ranges::find(kNumbers, key) != kNumbers.end();
    if (flag) {
        MIG_TRY(const bool on, parse_bool(value), "'{}'", key);
        return Json(on);
    }
    if (number) {
        MIG_TRY(const uint64_t size, parse_size(value), "'{}'", key);
        return Json(size);
    }
    return Json(std::move(value));
}

std::vector<std::string> levels(std::string_view key) {
    std::vector<std::string> parts(1);
    for (const char c : key) {
        if (c == '.') {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

// The arguments of a command are numbered from 0 on, in any order.
Result<Json> list_of(const Json& numbered) {
    Json list = Json::array();
    if (!numbered.is_object() || numbered.size() > kMaxArguments) {
        return make_error(ErrorKind::InvalidArgument, "'args' has elements args.0 to args.{}",
                          kMaxArguments - 1);
    }
    for (size_t i = 0; i < numbered.size(); ++i) {
        const auto element = numbered.find(std::to_string(i));
        if (element == numbered.end()) {
            return make_error(ErrorKind::InvalidArgument, "'args.{}' is missing", i);
        }
        list.push_back(*element);
    }
    return list;
}

Result<Json> from_dotted_keys(const std::string& text) {
    MIG_TRY(auto options, SubOptions::parse("", text, "channel-type"));
    Json channel = Json::object();
    for (SubOptions::Pair& pair : options.take_rest()) {
        const std::vector<std::string> path = levels(pair.key);
        if (path.size() > kMaxLevels) {
            return make_error(ErrorKind::InvalidArgument, "'{}' has more than {} levels", pair.key,
                              kMaxLevels);
        }
        Json* at = &channel;
        for (const std::string& level : path) {
            if (at->is_null()) *at = Json::object();
            if (!at->is_object()) {
                return make_error(ErrorKind::InvalidArgument,
                                  "'{}' is below a key that has a value", pair.key);
            }
            at = &(*at)[level];
        }
        if (at->is_object()) {
            return make_error(ErrorKind::InvalidArgument, "'{}' has keys below it", pair.key);
        }
        MIG_TRY(*at, typed(path.back(), std::move(pair.value)));
    }
    if (channel.contains("addr") && channel["addr"].contains(kArguments)) {
        MIG_TRY(channel["addr"][std::string(kArguments)],
                list_of(channel["addr"][std::string(kArguments)]));
    }
    return channel;
}

Result<MigrationAddress> address_of(const std::string& text) {
    if (is_uri(text)) return migration::parse_migration_uri(text);
    if (text.starts_with('{')) {
        MIG_TRY(const Json channel, monitor::parse_json(text));
        return monitor::address_from_channel(channel);
    }
    MIG_TRY(const Json channel, from_dotted_keys(text));
    return monitor::address_from_channel(channel);
}

// Given again, the last one counts.
Result<> incoming(Draft& draft, const std::string& value) {
    IncomingOptions options{.text = value, .address = {}};
    if (value.empty()) return make_error(ErrorKind::InvalidArgument, "-incoming: URI missing");
    if (value != "defer") {
        MIG_TRY(options.address, address_of(value), "-incoming {}", value);
    }
    draft.options.incoming = std::move(options);
    return {};
}

}  // namespace

void add_incoming_option(Handlers& handlers) {
    handlers.insert({{"incoming", incoming}});
}

}  // namespace ferry::vmm
