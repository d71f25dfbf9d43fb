// SPDX-License-Identifier: BSD-2-Clause
// Commands about how fast memory gets dirty: measuring it, and limiting it, which only KVM's dirty
// ring could do.
#include <algorithm>
#include <array>

#include "system/vmm/management.h"
#include "system/vmm/vm.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::Invocation;
using monitor::Json;
using monitor::JsonType;
using monitor::Reply;
using monitor::Schema;
using std::chrono::milliseconds;

constexpr auto kOptional = monitor::Presence::Optional;

Schema time_units() {
    return Schema::enumeration({"second", "millisecond"});
}
struct ModeName {
    std::string_view name;
    DirtyRateMode mode;
};
constexpr std::array kModes = {ModeName{"page-sampling", DirtyRateMode::PageSampling},
                               ModeName{"dirty-ring", DirtyRateMode::DirtyRing},
                               ModeName{"dirty-bitmap", DirtyRateMode::DirtyBitmap}};

Schema modes() {
    Schema schema = Schema::enumeration({});
    for (const ModeName& mode : kModes) schema.values.emplace_back(mode.name);
    return schema;
}
bool in_milliseconds(const Json& arguments) {
    return arguments.value("calc-time-unit", std::string("second")) == "millisecond";
}

Result<DirtyRateRequest> request_from(const DirtyRate& rate, const Json& arguments) {
    constexpr int64_t kMsPerS = 1000;
    const auto time = arguments["calc-time"].get<int64_t>();
    const int64_t unit = in_milliseconds(arguments) ? 1 : kMsPerS;
    const int64_t longest = DirtyRate::kMaxTime.count() / unit;
    if (time < 0 || time > longest || milliseconds(time * unit) < DirtyRate::kMinTime) {
        return make_error(ErrorKind::InvalidArgument,
                          "Calculation time is out of range [{}ms, {}ms].",
                          DirtyRate::kMinTime.count(), DirtyRate::kMaxTime.count());
    }
    const std::string name = arguments.value("mode", std::string("page-sampling"));
    const DirtyRateMode mode = std::ranges::find(kModes, name, &ModeName::name)->mode;
    const bool sampling = mode == DirtyRateMode::PageSampling;
    if (arguments.contains("sample-pages") && !sampling) {
        return make_error(ErrorKind::InvalidArgument,
                          "sample-pages is used only in page-sampling mode");
    }
    const int64_t samples =
        arguments.value("sample-pages", static_cast<int64_t>(DirtyRate::kDefaultSamples));
    if (samples < static_cast<int64_t>(DirtyRate::kMinSamples) ||
        samples > static_cast<int64_t>(DirtyRate::kMaxSamples)) {
        return make_error(ErrorKind::InvalidArgument, "sample-pages is out of range[{}, {}].",
                          DirtyRate::kMinSamples, DirtyRate::kMaxSamples);
    }
    if (!rate.offers(mode)) {
        return make_error(ErrorKind::Unsupported,
                          "mode {} is not enabled, use other method instead.", name);
    }
    return DirtyRateRequest{.time = milliseconds(time * unit),
                            .mode = mode,
                            .pages_per_gib = sampling ? static_cast<uint64_t>(samples) : 0};
}

void calc_dirty_rate(DirtyRate& rate, const Json& arguments, Reply reply) {
    // One at a time comes first: the rest of a call that must wait does not matter.
    if (rate.state().status == DirtyRate::Status::Measuring) {
        return std::move(reply).finish(rate.start({}));
    }
    const auto request = request_from(rate, arguments);
    if (!request) return std::move(reply).fail(request.error());
    std::move(reply).finish(rate.start(*request));
}

Json dirty_rate_json(const DirtyRate::State& state, const Json& arguments) {
    const bool ms = in_milliseconds(arguments);
    const auto name = [](DirtyRate::Status status) {
        switch (status) {
            case DirtyRate::Status::Unstarted: return "unstarted";
            case DirtyRate::Status::Measuring: return "measuring";
            case DirtyRate::Status::Measured: return "measured";
        }
        return "unstarted";
    };
    const int64_t time = state.request.time.count();
    Json out = {{"status", name(state.status)},
                {"start-time", state.begin.count()},
                {"calc-time", ms ? time : time / 1000},
                {"calc-time-unit", ms ? "millisecond" : "second"},
                {"sample-pages", state.request.pages_per_gib},
                {"mode", std::ranges::find(kModes, state.request.mode, &ModeName::mode)->name}};
    if (state.status == DirtyRate::Status::Measured) out["dirty-rate"] = state.mib_per_s;
    return out;
}

Error no_limits(const Vm& vm) {
    if (vm.has_dirty_rings()) {
        return make_error(ErrorKind::Unsupported,
                          "CPUs can't be slowed down one by one yet; auto-converge slows all");
    }
    return make_error(ErrorKind::Unsupported,
                      "dirty page limit feature requires KVM with accelerator property "
                      "'dirty-ring-size' set");
}

void add_limit_commands(monitor::CommandTable& table, const Vm& vm) {
    const monitor::Member cpu{"cpu-index", {JsonType::Integer}, kOptional};
    table.add({"set-vcpu-dirty-limit",
               {cpu, {"dirty-rate", {JsonType::Uint64}}},
               [&vm](const Invocation&, Reply reply) { std::move(reply).fail(no_limits(vm)); }});
    // No limit can have been set: nothing is to be taken back, or to be told.
    table.add({"cancel-vcpu-dirty-limit", {cpu}, [](const Invocation&, Reply reply) {
                   std::move(reply).ok();
               }});
    table.add(
        {.name = "query-vcpu-dirty-limit",
         .arguments = {},
         .handler = [](const Invocation&, Reply reply) { std::move(reply).ok(Json::array()); },
         .returns = Schema::array_of(Schema::object({{"cpu-index", {JsonType::Integer}},
                                                     {"limit-rate", {JsonType::Uint64}},
                                                     {"current-rate", {JsonType::Uint64}}}))});
}

}  // namespace

void add_dirty_rate_commands(monitor::CommandTable& table, Management& management) {
    table.add({"calc-dirty-rate",
               {{"calc-time", {JsonType::Integer}},
                {"calc-time-unit", time_units(), kOptional},
                {"sample-pages", {JsonType::Integer}, kOptional},
                {"mode", modes(), kOptional}},
               [&management](const Invocation& call, Reply reply) {
                   calc_dirty_rate(management.dirty_rate(), call.arguments, std::move(reply));
               }});
    table.add({.name = "query-dirty-rate",
               .arguments = {{"calc-time-unit", time_units(), kOptional}},
               .handler =
                   [&management](const Invocation& call, Reply reply) {
                       std::move(reply).ok(
                           dirty_rate_json(management.dirty_rate().state(), call.arguments));
                   },
               .returns = Schema::object(
                   {{"status", Schema::enumeration({"unstarted", "measuring", "measured"})},
                    {"start-time", {JsonType::Integer}},
                    {"calc-time", {JsonType::Integer}},
                    {"calc-time-unit", time_units()},
                    {"sample-pages", {JsonType::Uint64}},
                    {"mode", modes()},
                    {"dirty-rate", {JsonType::Integer}, kOptional}})});
    add_limit_commands(table, management.vm());
}

}  // namespace ferry::vmm
