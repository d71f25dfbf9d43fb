// SPDX-License-Identifier: BSD-2-Clause
// Commands about descriptors that came with a request.
#include "monitor/commands.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

constexpr auto kOptional = Presence::Optional;

template <typename T>
std::optional<T> optional_argument(const Invocation& call, const char* name) {
    const auto found = call.arguments.find(name);
    if (found == call.arguments.end()) return std::nullopt;
    return found->get<T>();
}

Result<Json> add_fd(const Invocation& call) {
    MIG_TRY(UniqueFd fd, call.fds.take_passed());
    MIG_TRY(const FdSets::Added added,
            call.fds.sets().add(std::move(fd), optional_argument<int64_t>(call, "fdset-id"),
                                optional_argument<std::string>(call, "opaque")));
    return Json{{"fdset-id", added.set}, {"fd", added.fd}};
}

Json fd_sets_json(const FdSets& sets) {
    Json list = Json::array();
    for (const auto& [id, members] : sets.all()) {
        Json fds = Json::array();
        for (const auto& [number, member] : members) {
            Json entry = {{"fd", number}};
            if (member.opaque) entry["opaque"] = *member.opaque;
            fds.push_back(std::move(entry));
        }
        list.push_back({{"fdset-id", id}, {"fds", std::move(fds)}});
    }
    return list;
}

const std::vector<Member>& fd_set_members() {
    static const std::vector<Member> members{
        {"fdset-id", {JsonType::Integer}},
        {"fds", Schema::array_of(Schema::object(
                    {{"fd", {JsonType::Integer}}, {"opaque", {JsonType::String}, kOptional}}))}};
    return members;
}

}  // namespace

void add_fd_commands(CommandTable& table) {
    const std::vector<Member> name{{"fdname", {JsonType::String}}};
    table.add({"getfd", name, [](const Invocation& call, Reply reply) {
                   std::move(reply).finish(
                       call.fds.getfd(call.arguments["fdname"].get<std::string>()));
               }});
    table.add({"closefd", name, [](const Invocation& call, Reply reply) {
                   std::move(reply).finish(
                       call.fds.closefd(call.arguments["fdname"].get<std::string>()));
               }});
    table.add({.name = "add-fd",
               .arguments = {{"fdset-id", {JsonType::Integer}, kOptional},
                             {"opaque", {JsonType::String}, kOptional}},
               .handler =
                   [](const Invocation& call, Reply reply) {
                       auto added = add_fd(call);
                       if (!added) return std::move(reply).fail(added.error());
                       std::move(reply).ok(std::move(*added));
                   },
               .returns = Schema::object(
                   {{"fdset-id", {JsonType::Integer}}, {"fd", {JsonType::Integer}}})});
    table.add({"remove-fd",
               {{"fdset-id", {JsonType::Integer}}, {"fd", {JsonType::Integer}, kOptional}},
               [](const Invocation& call, Reply reply) {
                   std::move(reply).finish(
                       call.fds.sets().remove(call.arguments["fdset-id"].get<int64_t>(),
                                              optional_argument<int64_t>(call, "fd")));
               }});
    table.add({.name = "query-fdsets",
               .arguments = {},
               .handler = [](const Invocation& call,
                             Reply reply) { std::move(reply).ok(fd_sets_json(call.fds.sets())); },
               .returns = Schema::array_of(Schema::object(fd_set_members()))});
}

}  // namespace ferry::monitor
