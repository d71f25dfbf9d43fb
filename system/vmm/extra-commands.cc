// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/extra-commands.h"

#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::Invocation;
using monitor::Json;
using monitor::JsonType;
using monitor::Reply;
using monitor::Schema;

void query_workloads(Vm& vm, Reply reply) {
    Json list = Json::array();
    for (const qtest::Workload* workload : vm.workloads().all()) {
        const qtest::WorkloadState state = workload->state();
        list.push_back({{"id", workload->id()},
                        {"position", state.position},
                        {"pages-per-second", state.pages_per_second},
                        {"working-set", state.working_set},
                        {"offset", state.offset},
                        {"seed", state.seed},
                        {"pattern", state.order == qtest::Order::Sequential ? "seq" : "rand"},
                        {"fill", state.fill == qtest::Fill::Page ? "page" : "record"}});
    }
    std::move(reply).ok(std::move(list));
}

Schema workload_schema() {
    return Schema::object({{"id", {JsonType::String}},
                           {"position", {JsonType::Integer}},
                           {"pages-per-second", {JsonType::Integer}},
                           {"working-set", {JsonType::Integer}},
                           {"offset", {JsonType::Integer}},
                           {"seed", {JsonType::Integer}},
                           {"pattern", Schema::enumeration({"seq", "rand"})},
                           {"fill", Schema::enumeration({"page", "record"})}});
}

void set_workload(Vm& vm, const Invocation& call, Reply reply) {
    const auto id = call.arguments["id"].get<std::string>();
    qtest::Workload* const workload = vm.workloads().find(id);
    if (workload == nullptr) {
        return std::move(reply).fail(
            make_error(ErrorKind::InvalidArgument, "Workload '{}' not found", id));
    }
    std::move(reply).finish(
        workload->set_pages_per_second(monitor::to_uint64(call.arguments["pages-per-second"])));
}

}  // namespace

void add_extra_commands(monitor::CommandTable& table, Vm& vm) {
    table.add({.name = "x-query-workloads",
               .arguments = {},
               .handler = [&vm](const Invocation&,
                                Reply reply) { query_workloads(vm, std::move(reply)); },
               .returns = Schema::array_of(workload_schema())});
    table.add(
        {"x-set-workload",
         {{"id", {JsonType::String}}, {"pages-per-second", {JsonType::Uint64}}},
         [&vm](const Invocation& call, Reply reply) { set_workload(vm, call, std::move(reply)); }});
    table.add({"x-set-faults",
               {{"id", {JsonType::String}}, {"script", {JsonType::String}}},
               [&vm](const Invocation& call, Reply reply) {
                   std::move(reply).finish(
                       vm.devices().set_faults(call.arguments["id"].get<std::string>(),
                                               call.arguments["script"].get<std::string>()));
               }});
    table.add({.name = "x-query-board",
               .arguments = {},
               .handler =
                   [&vm](const Invocation&, Reply reply) {
                       std::move(reply).ok({{"lost-msis", vm.board().lost_msis()}});
                   },
               .returns = Schema::object({{"lost-msis", {JsonType::Integer}}})});
}

}  // namespace ferry::vmm
