// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "monitor/hmp.h"
#include "monitor/migration-json.h"
#include "monitor/settings.h"

namespace ferry::monitor {
namespace {

using migration::MigrationStatus;
using migration::Role;

constexpr MigrationStatus kAll[] = {
    MigrationStatus::None,      MigrationStatus::Setup,         MigrationStatus::Cancelling,
    MigrationStatus::Cancelled, MigrationStatus::Active,        MigrationStatus::Completed,
    MigrationStatus::Failed,    MigrationStatus::PreSwitchover, MigrationStatus::Device,
};

MigrationView source_view(MigrationStatus status) {
    MigrationView view;
    view.info.status = status;
    view.info.counters.emplace();
    view.info.counters->transferred = 2048;
    view.info.counters->normal = 3;
    view.info.counters->total_time_ms = 17;
    view.info.counters->expected_downtime_ms = 300;
    view.info.counters->downtime_ms = 4;
    view.info.counters->vfio_transferred = 4096;
    view.vfio_devices = {{"net0", "pre-copy", 10, 0}};
    return view;
}
std::set<std::string> members(const Json& object) {
    std::set<std::string> names;
    for (const auto& entry : object.items()) names.insert(entry.key());
    return names;
}
using Names = std::set<std::string>;

TEST(QueryMigrate, CountersAreShownInTheStatusesThatMoveDataAndWhenCompleted) {
    for (const MigrationStatus status : kAll) {
        const Json out = to_json(source_view(status));
        const bool counters =
            status == MigrationStatus::Active || status == MigrationStatus::Cancelling ||
            status == MigrationStatus::PreSwitchover || status == MigrationStatus::Device ||
            status == MigrationStatus::Completed;
        EXPECT_EQ(out.contains("ram"), counters) << to_string(status);
        EXPECT_EQ(out.contains("total-time"), counters) << to_string(status);
        EXPECT_EQ(out.contains("vfio"), counters) << to_string(status);
        EXPECT_EQ(out.contains("status"), status != MigrationStatus::None) << to_string(status);
    }
}

TEST(QueryMigrate, ExpectedDowntimeGivesWayToDowntime) {
    EXPECT_EQ(members(to_json(source_view(MigrationStatus::Active))),
              (Names{"status", "ram", "total-time", "setup-time", "expected-downtime", "vfio"}));
    EXPECT_EQ(members(to_json(source_view(MigrationStatus::Completed))),
              (Names{"status", "ram", "total-time", "setup-time", "downtime", "vfio"}));
}

TEST(QueryMigrate, RamHasAllMembersAlways) {
    EXPECT_EQ(members(to_json(source_view(MigrationStatus::Active))["ram"]),
              (Names{"transferred", "remaining", "total", "duplicate", "normal", "normal-bytes",
                     "dirty-pages-rate", "mbps", "dirty-sync-count", "dirty-sync-missed-zero-copy",
                     "postcopy-requests", "page-size", "multifd-bytes", "precopy-bytes",
                     "downtime-bytes", "postcopy-bytes", "pages-per-second"}));
    EXPECT_EQ(to_json(source_view(MigrationStatus::Active))["ram"]["normal-bytes"], 3 * 4096);
}

TEST(QueryMigrate, VfioTellsTheDevices) {
    EXPECT_EQ(to_json(source_view(MigrationStatus::Active))["vfio"],
              Json::parse(R"({"transferred": 4096, "devices": [
                  {"id": "net0", "state": "pre-copy", "sent": 10, "loaded": 0}]})"));
}

TEST(QueryMigrate, DestinationTellsItsDevicesAndWhereItListensButNoCounters) {
    MigrationView view;
    view.info.role = Role::Destination;
    view.info.status = MigrationStatus::Active;
    view.info.listening = migration::TcpAddress{"127.0.0.1", "4444"};
    view.vfio_devices = {{"net0", "resuming", 0, 99}};
    const Json out = to_json(view);
    EXPECT_EQ(members(out), (Names{"status", "vfio", "socket-address"}));
    EXPECT_EQ(out["vfio"]["devices"][0]["loaded"], 99);
    EXPECT_EQ(out["socket-address"],
              Json::parse(R"([{"type": "inet", "host": "127.0.0.1", "port": "4444",
                               "ipv4": true}])"));
}

TEST(QueryMigrate, PendingCallsAndTimelineAreShownInAnyStatusWhenThereAreAny) {
    MigrationView view;
    view.now = std::chrono::seconds(10);
    view.pending_calls = {{"net0", "set state stop", std::chrono::milliseconds(9500)}};
    view.timeline = {{"net0", "stop", std::chrono::nanoseconds(5), std::chrono::nanoseconds(9), 7}};
    view.blocked_reasons = {"no"};
    EXPECT_EQ(to_json(view), Json::parse(R"({
        "blocked-reasons": ["no"],
        "x-pending-calls": [{"who": "net0", "call": "set state stop", "pending-ms": 500}],
        "x-timeline": [{"who": "net0", "step": "stop", "begin-ns": 5, "end-ns": 9, "bytes": 7}]})"));
}

TEST(AddressOfDestination, IsTheMainChannelAlone) {
    constexpr std::string_view kRefusal = "Channel list must have only one entry, for type 'main'";
    const Json main = Json::parse(R"({"channel-type": "main", "addr":
        {"transport": "socket", "type": "unix", "path": "/x"}})");
    Json cpr = main;
    cpr["channel-type"] = "cpr";
    for (const Json& channels :
         {Json::array({main, main}), Json::array({main, cpr}), Json::array({cpr})}) {
        const auto address =
            address_from_arguments({{"channels", channels}}, ChannelRule::OnlyMain);
        ASSERT_FALSE(address);
        EXPECT_EQ(address.error().message(), kRefusal);
    }
    EXPECT_TRUE(address_from_arguments({{"channels", Json::array({main})}}, ChannelRule::OnlyMain));
}

struct AddressCase {
    std::string_view arguments;
    std::string_view answer;  // the address as a uri, or the error
};
class Address : public testing::TestWithParam<AddressCase> {};
TEST_P(Address, IsReadFromTheArguments) {
    const Json arguments = Json::parse(GetParam().arguments);
    auto fits = check_members(address_schema(), arguments, "");
    if (!fits) {
        EXPECT_EQ(fits.error().message(), GetParam().answer);
        return;
    }
    const auto address = address_from_arguments(arguments);
    EXPECT_EQ(address ? migration::to_string(*address) : address.error().message(),
              GetParam().answer);
}
INSTANTIATE_TEST_SUITE_P(
    Table, Address,
    testing::Values(
        AddressCase{R"({"uri": "tcp:localhost:4444"})", "tcp:localhost:4444"},
        AddressCase{R"({"uri": "unix:/x", "channels": [
            {"channel-type": "main", "addr": {}}]})",
                    "need either 'uri' or 'channels' argument"},
        AddressCase{R"({"uri": "unix:/x", "channels": []})", "unix:/x"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "socket", "type": "inet", "host": "h", "port": "1"}}]})",
                    "tcp:h:1"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "socket", "type": "unix", "path": "/x"}}]})",
                    "unix:/x"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "socket", "type": "fd", "str": "mig"}}]})",
                    "fd:mig"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "exec", "args": []}}]})",
                    "Parameter 'channels[0].addr.args' must not be empty"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "file", "filename": "/x"}}]})",
                    "Parameter 'channels[0].addr.offset' is missing"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "socket", "type": "unix", "path": "/x", "host": "h"}}]})",
                    "Parameter 'channels[0].addr.host' is unexpected"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr": {"transport": "pigeon"}}]})",
                    "Parameter 'transport' does not accept value 'pigeon'"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr": {"transport": "socket"}}]})",
                    "Parameter 'channels[0].addr.type' is missing"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr": {}}]})",
                    "Parameter 'channels[0].addr.transport' is missing"},
        AddressCase{R"({"channels": [{"channel-type": "cpr", "addr": {}}]})",
                    "Channel list has no main entry"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr": {}},
                                     {"channel-type": "main", "addr": {}}]})",
                    "Channel list has more than one main entry"},
        AddressCase{R"({"channels": [{"channel-type": "side", "addr": {}}]})",
                    "Parameter 'channel-type' does not accept value 'side'"},
        AddressCase{R"({"channels": [{"channel-type": "main", "addr":
            {"transport": "socket", "type": "inet", "host": "h", "port": "1",
             "ipv4": false, "ipv6": false}}]})",
                    "Cannot disable IPv4 and IPv6 at the same time"}));

TEST(Address, FamilyThatIsSwitchedOffLeavesTheOther) {
    const auto family = [](std::string_view options) {
        const std::string text =
            R"({"channels": [{"channel-type": "main", "addr": {"transport": "socket",
                "type": "inet", "host": "h", "port": "1")" +
            std::string(options) + "}}]}";
        return std::get<migration::TcpAddress>(*address_from_arguments(Json::parse(text))).family;
    };
    using Family = migration::TcpAddress::Family;
    EXPECT_EQ(family(""), Family::Any);
    EXPECT_EQ(family(R"(, "ipv4": true)"), Family::Ipv4);
    EXPECT_EQ(family(R"(, "ipv4": false)"), Family::Ipv6);
    EXPECT_EQ(family(R"(, "ipv6": true)"), Family::Ipv6);
    EXPECT_EQ(family(R"(, "ipv4": true, "ipv6": true)"), Family::Any);
}

TEST(Settings, EveryParameterOfTheCoreCanBeReachedAndHasItsDefault) {
    const Json shown = parameters_to_json({});
    for (const migration::ParameterInfo& core : migration::parameter_table()) {
        const ParameterShape* shape = find_parameter(core.name);
        ASSERT_NE(shape, nullptr) << core.name;
        const Json value =
            std::visit([](const auto& one) { return Json(one); }, shape->default_value);
        EXPECT_EQ(value, shown[std::string(core.name)]) << core.name;
    }
}

TEST(Settings, NullMeansTheEmptyText) {
    EXPECT_TRUE(change_parameters({}, {{"tls-creds", nullptr}}));
    EXPECT_TRUE(change_parameters({}, {{"tls-creds", ""}}));
    EXPECT_FALSE(change_parameters({}, {{"tls-creds", "x"}}));
}

struct TypedCase {
    std::string_view name;
    std::string_view text;
    std::string_view value;  // as JSON, or the error
};
class Typed : public testing::TestWithParam<TypedCase> {};
TEST_P(Typed, IsWhatItsParameterWants) {
    const auto value = parameter_from_text(GetParam().name, std::string(GetParam().text));
    EXPECT_EQ(value ? to_text(*value) : value.error().message(), GetParam().value);
}
INSTANTIATE_TEST_SUITE_P(
    Table, Typed,
    testing::Values(TypedCase{"max-bandwidth", "3", "3145728"},
                    TypedCase{"max-bandwidth", "3k", "3072"},
                    TypedCase{"max-bandwidth", "1G", "1073741824"},
                    TypedCase{"max-bandwidth", "3x", "Invalid size 3x"},
                    TypedCase{"max-bandwidth", "99999999999E", "Invalid size 99999999999E"},
                    TypedCase{"max-bandwidth", "", "Invalid size "},
                    TypedCase{"max-postcopy-bandwidth", "3", "3"},
                    TypedCase{"xbzrle-cache-size", "64M", "67108864"},
                    TypedCase{"downtime-limit", "500", "500"},
                    TypedCase{"downtime-limit", "5s", "Invalid parameter type, expected: integer"},
                    TypedCase{"direct-io", "yes", "true"}, TypedCase{"direct-io", "off", "false"},
                    TypedCase{"direct-io", "maybe", "Invalid parameter type, expected: boolean"},
                    TypedCase{"tls-creds", "tls0", "\"tls0\""},
                    TypedCase{"warp", "1", "invalid parameter value: warp"}));

}  // namespace
}  // namespace ferry::monitor
