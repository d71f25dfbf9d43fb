// SPDX-License-Identifier: BSD-2-Clause
// The monitor as a whole, by its clients' sockets, over a VM with real run state and migration.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>

#include "tests/unit/monitor/fake-vm.h"
#include "util/try.h"

namespace ferry::monitor {
namespace {

using system::RunState;
using test::FakeVm;
using test::QmpClient;

Json request(std::string_view name, Json arguments = Json::object()) {
    return {{"execute", name}, {"arguments", std::move(arguments)}};
}
const Json kDone = {{"return", Json::object()}};
std::string desc(const Json& reply) {
    return reply.contains("error") ? reply["error"]["desc"].get<std::string>() : reply.dump();
}

class MonitorTest : public testing::Test {
 protected:
    void make(RunState initial) {
        vm.emplace(clock, initial);
        client.emplace(vm->client());
    }
    void make_running() {
        make(RunState::PreLaunch);
        ASSERT_EQ(client->call(request("cont")), kDone);
    }
    Json call(std::string_view name, Json arguments = Json::object()) {
        return client->call(request(name, std::move(arguments)));
    }
    std::string status() { return call("query-status")["return"]["status"]; }

    util::SystemClock clock;
    std::optional<FakeVm> vm;
    std::optional<QmpClient> client;
};

TEST_F(MonitorTest, ContAndStopTellTheStateAndItsEvents) {
    make(RunState::PreLaunch);
    EXPECT_EQ(call("query-status")["return"],
              Json::parse(R"({"running": false, "status": "prelaunch"})"));
    client->send(request("cont").dump());
    EXPECT_EQ(client->next()["event"], "RESUME");
    EXPECT_EQ(client->next(), kDone);
    EXPECT_EQ(call("query-status")["return"],
              Json::parse(R"({"running": true, "status": "running"})"));
    client->send(request("stop").dump());
    EXPECT_EQ(client->next()["event"], "STOP");
    EXPECT_EQ(client->next(), kDone);
    EXPECT_EQ(status(), "paused");
}

TEST_F(MonitorTest, PowerButtonIsToldWhenTheMachineHasOne) {
    make_running();
    client->send(request("system_powerdown").dump());
    EXPECT_EQ(client->next()["event"], "POWERDOWN");
    EXPECT_EQ(client->next(), kDone);
    vm->powerdown_result = Error(ErrorKind::Unsupported, "no button");
    vm->wakeup_result =
        Error(ErrorKind::InvalidState, "Unable to wake up: guest is not in suspended state");
    EXPECT_EQ(desc(call("system_powerdown")), "no button");
    EXPECT_EQ(desc(call("system_wakeup")), "Unable to wake up: guest is not in suspended state");
    EXPECT_EQ(call("query-current-machine")["return"]["wakeup-suspend-support"], true);
}

TEST_F(MonitorTest, AcceleratorAndCpusAreTheVms) {
    make(RunState::PreLaunch);
    EXPECT_EQ(call("query-kvm")["return"], Json::parse(R"({"enabled": true, "present": true})"));
    EXPECT_EQ(call("query-cpus-fast")["return"],
              Json::parse(R"([{"cpu-index": 0, "thread-id": 42, "target": "x86_64",
                               "qom-path": "/machine/unattached/device[0]"}])"));
}

TEST_F(MonitorTest, StopAndContWithoutEffectSucceedWithoutEvent) {
    make_running();
    client->send(request("cont").dump());
    EXPECT_EQ(client->next(), kDone);
    EXPECT_EQ(call("stop"), kDone);
    client->send(request("stop").dump());
    EXPECT_EQ(client->next(), kDone);
    EXPECT_EQ(status(), "paused");
}

TEST_F(MonitorTest, StopOfAVmThatNeverRanLeavesItInPrelaunch) {
    make(RunState::PreLaunch);
    EXPECT_EQ(call("stop"), kDone);
    EXPECT_EQ(status(), "prelaunch");
}

TEST_F(MonitorTest, InInmigrateStopAndContDecideOnlyAboutAutostart) {
    make(RunState::InMigrate);
    EXPECT_EQ(call("stop"), kDone);
    vm->vm.loop.run([&] { EXPECT_FALSE(vm->vm.runstate.autostart()); });
    EXPECT_EQ(call("cont"), kDone);
    vm->vm.loop.run([&] { EXPECT_TRUE(vm->vm.runstate.autostart()); });
    EXPECT_EQ(status(), "inmigrate");
}

TEST_F(MonitorTest, ContAfterShutdownWantsAReset) {
    make(RunState::Shutdown);
    EXPECT_EQ(desc(call("cont")), "Resetting the Virtual Machine is required");
}

TEST_F(MonitorTest, ContDuringSwitchoverIsRefused) {
    make(RunState::FinishMigrate);
    EXPECT_EQ(desc(call("cont")), "Migration is not finalized yet");
    EXPECT_EQ(desc(call("system_reset")), "Migration is not finalized yet");
}

TEST_F(MonitorTest, StopRepliesWhenTheDevicesHaveStoppedAndOthersAreServedMeanwhile) {
    make_running();
    FakeVm::SlowDevice device;
    util::Registration registration;
    vm->vm.loop.run([&] { registration = vm->vm.runstate.add_handler(device); });
    QmpClient other = vm->client();
    client->send(request("stop").dump());
    EXPECT_EQ(other.call(request("query-status"))["return"]["status"], "running");
    vm->finish(device);
    EXPECT_EQ(client->event("STOP")["event"], "STOP");
    EXPECT_EQ(client->next(), kDone);
    vm->vm.loop.run([&] { registration.reset(); });
}

TEST_F(MonitorTest, StopThatADeviceRefusesRepliesWithItsError) {
    make_running();
    FakeVm::SlowDevice device;
    util::Registration registration;
    vm->vm.loop.run([&] { registration = vm->vm.runstate.add_handler(device); });
    client->send(request("stop").dump());
    vm->finish(device, make_error(ErrorKind::Syscall, "device x: will not"));
    vm->finish(device);  // is started again
    EXPECT_EQ(desc(client->next()), "device x: will not");
    EXPECT_EQ(status(), "running");
    vm->vm.loop.run([&] { registration.reset(); });
}

TEST_F(MonitorTest, ResetWaitsForAStopUnderWayAndWhatComesLaterWaitsForTheReset) {
    make_running();
    FakeVm::SlowDevice device;
    util::Registration registration;
    vm->vm.loop.run([&] { registration = vm->vm.runstate.add_handler(device); });
    QmpClient resetter = vm->client();
    QmpClient starter = vm->client();
    client->send(request("stop").dump());
    ASSERT_TRUE(vm->vm.loop.wait_for([&] { return device.waiting.size() == 1; }));
    resetter.send(request("system_reset").dump());
    resetter.send(request("query-status").dump());  // read ahead: the reset has been seen
    ASSERT_EQ(vm->client().call(request("query-name"))["return"]["name"], "guest");
    vm->vm.loop.run([&] { EXPECT_TRUE(vm->resets.empty()); });
    vm->finish(device);
    ASSERT_TRUE(vm->vm.loop.wait_for([&] { return vm->resets.size() == 1; }));
    starter.send(request("cont").dump());
    ASSERT_EQ(vm->client().call(request("query-name"))["return"]["name"], "guest");
    EXPECT_EQ(vm->vm.state(), RunState::Paused);
    vm->vm.loop.run([&] {
        EXPECT_TRUE(device.waiting.empty());
        std::exchange(vm->resets, {}).front()({});
    });
    EXPECT_EQ(resetter.event("RESET")["data"],
              Json::parse(R"({"guest": false, "reason": "host-qmp-system-reset"})"));
    EXPECT_EQ(resetter.next(), kDone);
    vm->finish(device);
    starter.event("RESUME");
    EXPECT_EQ(starter.next(), kDone);
    vm->vm.loop.run([&] { registration.reset(); });
}

TEST_F(MonitorTest, ResetIsAShutdownWhereItWasAskedFor) {
    make_running();
    vm->vm.loop.run([&] { vm->shuts_down_at_reset = true; });
    EXPECT_EQ(call("system_reset"), kDone);
    vm->vm.loop.run([&] {
        EXPECT_TRUE(vm->resets.empty());
        EXPECT_EQ(vm->shut_down_causes, std::vector{ShutdownCause::HostQmpSystemReset});
    });
}

TEST_F(MonitorTest, ResetOfAStoppedVmMakesItNewAndOfARunningOneLeavesItRunning) {
    make(RunState::Paused);
    const auto reset = [&] {
        client->send(request("system_reset").dump());
        ASSERT_TRUE(vm->vm.loop.wait_for([&] { return !vm->resets.empty(); }));
        vm->vm.loop.run([&] { std::exchange(vm->resets, {}).front()({}); });
        EXPECT_EQ(client->event("RESET")["data"]["guest"], false);
        EXPECT_EQ(client->next(), kDone);
    };
    reset();
    EXPECT_EQ(status(), "prelaunch");
    ASSERT_EQ(call("cont"), kDone);
    reset();
    EXPECT_EQ(status(), "running");
}

TEST_F(MonitorTest, FailedResetIsTheRepliesErrorAndNoEvent) {
    make(RunState::Paused);
    client->send(request("system_reset").dump());
    ASSERT_TRUE(vm->vm.loop.wait_for([&] { return !vm->resets.empty(); }));
    vm->vm.loop.run(
        [&] { std::exchange(vm->resets, {}).front()(make_error(ErrorKind::Syscall, "will not")); });
    EXPECT_EQ(desc(client->next()), "will not");
    EXPECT_EQ(status(), "paused");
}

TEST_F(MonitorTest, QuitAnnouncesItselfRefusesWhatWaitsAndReplies) {
    make_running();
    FakeVm::SlowDevice device;
    util::Registration registration;
    vm->vm.loop.run([&] { registration = vm->vm.runstate.add_handler(device); });
    client->send(request("stop").dump());
    ASSERT_TRUE(vm->vm.loop.wait_for([&] { return !device.waiting.empty(); }));
    client->send(request("query-status").dump());
    client->send(request("quit").dump());
    const Json event = client->next();
    EXPECT_EQ(event["event"], "SHUTDOWN");
    EXPECT_EQ(event["data"], Json::parse(R"({"guest": false, "reason": "host-qmp-quit"})"));
    EXPECT_EQ(desc(client->next()), "the process is ending");
    EXPECT_EQ(desc(client->next()), "the process is ending");
    EXPECT_EQ(client->next(), kDone);
    vm->vm.loop.run([&] { EXPECT_EQ(vm->quits, 1); });
    vm->finish(device);
    vm->vm.loop.run([&] { registration.reset(); });
}

TEST_F(MonitorTest, DeviceDelTellsWhichDeviceWent) {
    make_running();
    EXPECT_EQ(call("device_del", {{"id", "gone"}}),
              Json::parse(R"({"error": {"class": "DeviceNotFound",
                                        "desc": "Device 'gone' not found"}})"));
    client->send(request("device_del", {{"id", "there"}}).dump());
    EXPECT_EQ(client->next()["data"],
              Json::parse(R"({"device": "there", "path": "/machine/peripheral/there"})"));
    EXPECT_EQ(client->next(), kDone);
}

TEST_F(MonitorTest, InformationHasTheShapeOfQmp) {
    make(RunState::PreLaunch);
    EXPECT_EQ(call("query-name")["return"], Json::parse(R"({"name": "guest"})"));
    EXPECT_EQ(call("query-uuid")["return"]["UUID"].get<std::string>().size(), 36U);
    EXPECT_EQ(call("query-target")["return"], Json::parse(R"({"arch": "x86_64"})"));
    EXPECT_EQ(call("query-version")["return"]["qemu"]["major"], 10);
    EXPECT_EQ(call("query-machines")["return"], Json::parse(R"([{"name": "test", "alias": "t",
        "is-default": true, "cpu-max": 1, "hotpluggable-cpus": false, "numa-mem-supported": false,
        "deprecated": false, "acpi": false}])"));
    const Json commands = call("query-commands")["return"];
    EXPECT_NE(std::ranges::find(commands, Json::parse(R"({"name": "qmp_capabilities"})")),
              commands.end());
    EXPECT_NE(std::ranges::find(commands, Json::parse(R"({"name": "migrate"})")), commands.end());
    vm->vm.loop.run([&] { vm->vm_name.clear(); });
    EXPECT_EQ(call("query-name"), kDone);
}

TEST_F(MonitorTest, TypesAreListedByWhatTheyImplement) {
    make(RunState::PreLaunch);
    EXPECT_EQ(call("qom-list-types", {{"implements", "accel"}})["return"],
              Json::parse(R"([{"name": "qtest-accel", "parent": "accel"}])"));
    EXPECT_EQ(call("qom-list-types", {{"implements", "accel"}, {"abstract", true}})["return"],
              Json::parse(R"([{"name": "accel", "parent": "object", "abstract": true},
                              {"name": "qtest-accel", "parent": "accel"}])"));
    EXPECT_EQ(call("qom-list-types")["return"].size(), 2U);
    EXPECT_EQ(call("qom-list-types", {{"implements", "warp"}})["return"], Json::array());
}

TEST_F(MonitorTest, SchemaNamesEveryCommandAndEveryTypeItRefersTo) {
    make(RunState::PreLaunch);
    const Json schema = call("query-qmp-schema")["return"];
    std::map<std::string, Json> entities;
    for (const Json& entity : schema) {
        EXPECT_TRUE(entities.emplace(entity["name"].get<std::string>(), entity).second) << entity;
    }
    const auto known = [&](const Json& entity, const char* member) {
        if (!entity.contains(member)) return;
        EXPECT_TRUE(entities.contains(entity[member].get<std::string>())) << entity;
    };
    for (const Json& entity : schema) {
        for (const char* member : {"arg-type", "ret-type", "element-type"}) known(entity, member);
        const bool object = entity["meta-type"] == "object";
        if (object) {
            for (const Json& member : entity["members"]) known(member, "type");
        }
    }
    const Json commands = call("query-commands")["return"];
    for (const Json& command : commands) {
        EXPECT_EQ(entities.at(command["name"].get<std::string>())["meta-type"], "command");
    }
    const auto members_of = [&](const char* name, const char* which) {
        std::map<std::string, Json> members;
        for (const Json& member : entities.at(entities.at(name)[which])["members"]) {
            members.emplace(member["name"].get<std::string>(), member);
        }
        return members;
    };
    EXPECT_TRUE(members_of("migrate", "arg-type").at("uri").contains("default"));
    EXPECT_FALSE(members_of("migrate-continue", "arg-type").at("state").contains("default"));
    EXPECT_TRUE(members_of("query-migrate", "ret-type").contains("blocked-reasons"));
    EXPECT_TRUE(members_of("query-migrate-parameters", "ret-type").contains("downtime-limit"));
    EXPECT_EQ(entities.at("migrate-recover")["allow-oob"], true);
    EXPECT_EQ(entities.at("MIGRATION")["meta-type"], "event");
}

TEST_F(MonitorTest, PostcopyCommandsAreRefusedAsInAnyOtherPhase) {
    make_running();
    EXPECT_NE(desc(call("migrate-start-postcopy")).find("Enable postcopy"), std::string::npos);
    EXPECT_NE(desc(call("migrate-pause")).find("only supported during postcopy"),
              std::string::npos);
    EXPECT_NE(desc(call("migrate-recover", {{"uri", "unix:/x"}})).find("postcopy is paused"),
              std::string::npos);
    EXPECT_EQ(desc(call("migrate-continue", {{"state", "postcopy-active"}})),
              "Migration not in expected state: none");
}

TEST_F(MonitorTest, DescriptorsOfASetAreAddedListedAndRemoved) {
    make_running();
    EXPECT_EQ(desc(call("add-fd")), "No file descriptor supplied via SCM_RIGHTS");
    auto [ours, theirs] = test::socket_pair();
    const std::vector<BorrowedFd> fds{theirs.borrow()};
    client->send_with_fds(request("add-fd", {{"fdset-id", 5}, {"opaque", "note"}}).dump(), fds);
    const Json added = client->next()["return"];
    EXPECT_EQ(added["fdset-id"], 5);
    EXPECT_EQ(call("query-fdsets")["return"],
              Json::array({{{"fdset-id", 5},
                            {"fds", Json::array({{{"fd", added["fd"]}, {"opaque", "note"}}})}}}));
    EXPECT_EQ(call("remove-fd", {{"fdset-id", 5}, {"fd", added["fd"]}}), kDone);
    EXPECT_EQ(desc(call("remove-fd", {{"fdset-id", 5}})),
              "File descriptor named 'fdset-id:5' not found");
}

TEST_F(MonitorTest, QueryMigrateIsEmptyBeforeAnyMigration) {
    make_running();
    EXPECT_EQ(call("query-migrate"), kDone);
}

TEST_F(MonitorTest, MigrateRefusesInTheOrderOfQmp) {
    make(RunState::InMigrate);
    const std::string both = "need either 'uri' or 'channels' argument";
    EXPECT_EQ(desc(call("migrate")), both);
    EXPECT_EQ(desc(call("migrate", {{"channels", Json::array()}})), both);
    EXPECT_EQ(desc(call("migrate", {{"uri", "warp:x"}})), "unknown migration protocol: warp:x");
    EXPECT_EQ(desc(call("migrate", {{"uri", "tcp:127.0.0.1:1"}, {"resume", true}})),
              "Cannot resume if there is no paused migration");
    EXPECT_EQ(desc(call("migrate", {{"uri", "tcp:127.0.0.1:1"}})),
              "Guest is waiting for an incoming migration");
    EXPECT_EQ(call("query-migrate"), kDone);
}

TEST_F(MonitorTest, MigrateIncomingOfAVmThatRunsIsRefused) {
    make_running();
    EXPECT_EQ(desc(call("migrate-incoming", {{"uri", "tcp:127.0.0.1:0"}})),
              "'-incoming' was not specified on the command line");
}

TEST_F(MonitorTest, MigrateContinueWithoutMigrationNamesTheState) {
    make_running();
    EXPECT_EQ(desc(call("migrate-continue", {{"state", "pre-switchover"}})),
              "Migration not in expected state: none");
    EXPECT_EQ(desc(call("migrate-continue", {{"state", "warp"}})),
              "Parameter 'state' does not accept value 'warp'");
}

TEST_F(MonitorTest, MigrateCancelWithoutMigrationSucceeds) {
    make_running();
    EXPECT_EQ(call("migrate_cancel"), kDone);
}

TEST_F(MonitorTest, CapabilitiesAreSetTogetherOrNotAtAll) {
    make_running();
    const auto entry = [](std::string_view name, bool on) {
        return Json{{"capability", name}, {"state", on}};
    };
    EXPECT_EQ(desc(call("migrate-set-capabilities",
                        {{"capabilities",
                          Json::array({entry("events", true), entry("switchover-ack", true)})}})),
              "Capability 'switchover-ack' requires capability 'return-path'");
    Json list = call("query-migrate-capabilities")["return"];
    EXPECT_EQ(list.size(), migration::kCapabilityCount);
    EXPECT_EQ(list[4], entry("events", false));
    EXPECT_EQ(
        call("migrate-set-capabilities", {{"capabilities", Json::array({entry("events", true)})}}),
        kDone);
    EXPECT_EQ(call("query-migrate-capabilities")["return"][4], entry("events", true));
    EXPECT_EQ(desc(call("migrate-set-capabilities",
                        {{"capabilities", Json::array({entry("warp", true)})}})),
              "Parameter 'capability' does not accept value 'warp'");
    EXPECT_EQ(call("migrate-set-capabilities", {{"capabilities", Json::array()}}), kDone);
}

TEST_F(MonitorTest, ParametersAreAllShownAndThoseThatExistCanBeSet) {
    make_running();
    EXPECT_EQ(call("migrate-set-parameters", {{"downtime-limit", 500}, {"multifd-channels", 2}}),
              kDone);
    const Json all = call("query-migrate-parameters")["return"];
    EXPECT_EQ(all["downtime-limit"], 500);
    EXPECT_EQ(all["max-bandwidth"], 128 * 1024 * 1024);
    EXPECT_EQ(all["tls-creds"], "");
    EXPECT_EQ(all["mode"], "normal");
}

TEST_F(MonitorTest, OneRefusedParameterRefusesTheCall) {
    make_running();
    EXPECT_EQ(desc(call("migrate-set-parameters",
                        {{"downtime-limit", 500}, {"xbzrle-cache-size", 4096}})),
              "Parameter 'xbzrle-cache-size' is not supported: it can only be 67108864");
    EXPECT_EQ(desc(call("migrate-set-parameters", {{"downtime-limit", 2000001}})),
              "Parameter 'downtime_limit' expects a value between 0 and 2000000");
    EXPECT_EQ(desc(call("migrate-set-parameters", {{"warp", 1}})),
              "Parameter 'warp' is unexpected");
    EXPECT_EQ(call("query-migrate-parameters")["return"]["downtime-limit"], 300);
}

// Two VMs over a real unix socket, all by QMP.
class MigrationTest : public MonitorTest {
 protected:
    MigrationTest() {
        std::string pattern = "/tmp/ferry-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
    }
    ~MigrationTest() override {
        client.reset();
        vm.reset();
        destination_client.reset();
        destination.reset();
        std::filesystem::remove_all(directory);
    }
    void make_pair() {
        make_running();
        destination.emplace(clock, RunState::InMigrate);
        destination_client.emplace(destination->client());
        for (QmpClient* each : {&*client, &*destination_client}) {
            const Json events = {{"capability", "events"}, {"state", true}};
            const Json return_path = {{"capability", "return-path"}, {"state", true}};
            ASSERT_EQ(each->call(request("migrate-set-capabilities",
                                         {{"capabilities", Json::array({events, return_path})}})),
                      kDone);
        }
    }
    std::string uri() const { return "unix:" + directory + "/migration"; }
    // The statuses that the client hears of until `last`.
    static std::vector<std::string> statuses(QmpClient& from, std::string_view last) {
        std::vector<std::string> out;
        do {
            const Json event = from.event("MIGRATION");
            if (event.is_null()) break;
            out.push_back(event["data"]["status"]);
        } while (out.back() != last);
        return out;
    }

    // Where in what the client heard; far behind when it did not. `nth` from 0.
    static size_t place(const QmpClient& of, std::string_view what, size_t nth = 0) {
        for (size_t i = 0; i < of.history().size(); ++i) {
            if (of.history()[i] == what && nth-- == 0) return i;
        }
        return SIZE_MAX;
    }

    std::string directory;
    std::optional<FakeVm> destination;
    std::optional<QmpClient> destination_client;
};
using Strings = std::vector<std::string>;

TEST_F(MigrationTest, EventsAndAnswersOfAMigrationThatSucceeds) {
    make_pair();
    destination_client->send(request("migrate-incoming", {{"uri", uri()}}).dump());
    EXPECT_EQ(destination_client->next()["data"]["status"], "setup");  // before the reply
    EXPECT_EQ(destination_client->next(), kDone);
    EXPECT_EQ(destination_client->call(request("query-migrate"))["return"]["socket-address"],
              Json::array({Json{{"type", "unix"}, {"path", directory + "/migration"}}}));
    ASSERT_EQ(call("migrate", {{"uri", uri()}}), kDone);
    EXPECT_EQ(client->history().back(), "reply");
    EXPECT_LT(place(*client, "MIGRATION setup"), client->history().size() - 1);
    EXPECT_EQ(client->event("MIGRATION_PASS")["data"]["pass"], 1);
    EXPECT_EQ(statuses(*client, "completed"), (Strings{"setup", "active", "device", "completed"}));
    EXPECT_EQ(statuses(*destination_client, "completed"), (Strings{"active", "completed"}));
    EXPECT_LT(place(*destination_client, "RESUME"),
              place(*destination_client, "MIGRATION completed"));
    EXPECT_LT(place(*client, "STOP"), place(*client, "MIGRATION device"));
    ASSERT_TRUE(vm->vm.wait_over());

    const Json info = call("query-migrate")["return"];
    EXPECT_EQ(info["status"], "completed");
    EXPECT_EQ(info["ram"]["remaining"], 0);
    EXPECT_EQ(info["ram"]["total"], test::TestVm::kRamBytes);
    EXPECT_TRUE(info.contains("downtime"));
    EXPECT_FALSE(info.contains("expected-downtime"));
    EXPECT_EQ(status(), "postmigrate");
    EXPECT_EQ(destination_client->call(request("query-status"))["return"]["status"], "running");
    EXPECT_EQ(desc(call("migrate", {{"uri", uri()}})),
              "Can't migrate the vm that was paused due to previous migration");
}

TEST_F(MigrationTest, RefusedConnectionShowsInQueryMigrateOnly) {
    make_pair();
    ASSERT_EQ(call("migrate", {{"uri", uri()}}), kDone);
    EXPECT_EQ(statuses(*client, "failed"), (Strings{"setup", "failed"}));
    ASSERT_TRUE(vm->vm.wait_over());
    const Json info = call("query-migrate")["return"];
    EXPECT_EQ(info["status"], "failed");
    EXPECT_FALSE(info.contains("ram"));
    EXPECT_NE(info["error-desc"].get<std::string>().find(directory), std::string::npos);
    EXPECT_EQ(status(), "running");
}

TEST_F(MigrationTest, FileThatCannotBeOpenedIsTheRepliesErrorToo) {
    make_pair();
    const Json reply = call("migrate", {{"uri", "file:" + directory + "/none/x"}});
    ASSERT_TRUE(reply.contains("error"));
    ASSERT_TRUE(vm->vm.wait_over());
    const Json info = call("query-migrate")["return"];
    EXPECT_EQ(info["status"], "failed");
    EXPECT_EQ(info["error-desc"], desc(reply));
}

TEST_F(MigrationTest, PauseBeforeSwitchoverByQmp) {
    make_pair();
    const Json pause = {{"capability", "pause-before-switchover"}, {"state", true}};
    ASSERT_EQ(call("migrate-set-capabilities", {{"capabilities", Json::array({pause})}}), kDone);
    ASSERT_EQ(destination_client->call(request("migrate-incoming", {{"uri", uri()}})), kDone);
    ASSERT_EQ(call("migrate", {{"uri", uri()}}), kDone);
    EXPECT_EQ(statuses(*client, "pre-switchover"), (Strings{"setup", "active", "pre-switchover"}));
    EXPECT_EQ(status(), "finish-migrate");
    EXPECT_EQ(desc(call("device_del", {{"id", "there"}})),
              "device_del not allowed while migrating");
    EXPECT_EQ(desc(call("migrate-set-capabilities", {{"capabilities", Json::array()}})),
              "There's a migration process in progress");
    EXPECT_EQ(desc(call("migrate-continue", {{"state", "active"}})),
              "Migration not in expected state: pre-switchover");
    ASSERT_EQ(call("migrate-continue", {{"state", "pre-switchover"}}), kDone);
    EXPECT_EQ(statuses(*client, "completed"), (Strings{"device", "completed"}));
}

TEST_F(MigrationTest, CancelInPreSwitchoverResumesBeforeItIsCancelled) {
    make_pair();
    const Json pause = {{"capability", "pause-before-switchover"}, {"state", true}};
    ASSERT_EQ(call("migrate-set-capabilities", {{"capabilities", Json::array({pause})}}), kDone);
    ASSERT_EQ(destination_client->call(
                  request("migrate-incoming", {{"uri", uri()}, {"exit-on-error", false}})),
              kDone);
    ASSERT_EQ(call("migrate", {{"uri", uri()}}), kDone);
    EXPECT_EQ(statuses(*client, "pre-switchover").back(), "pre-switchover");
    ASSERT_EQ(call("migrate_cancel"), kDone);
    EXPECT_EQ(statuses(*client, "cancelled"), (Strings{"cancelling", "cancelled"}));
    EXPECT_LT(place(*client, "STOP"), place(*client, "RESUME", 1));
    EXPECT_LT(place(*client, "RESUME", 1), place(*client, "MIGRATION cancelled"));
    EXPECT_EQ(status(), "running");
    EXPECT_EQ(statuses(*destination_client, "failed").back(), "failed");
}

TEST_F(MigrationTest, DescriptorGivenByGetfdCarriesTheStreamAndLeavesTheTable) {
    make_pair();
    auto [source_end, destination_end] = test::socket_pair();
    const BorrowedFd ours = source_end.borrow();
    const BorrowedFd theirs = destination_end.borrow();
    const std::string getfd = request("getfd", {{"fdname", "mig"}}).dump();
    client->send_with_fds(getfd, {&ours, 1});
    ASSERT_EQ(client->next(), kDone);
    destination_client->send_with_fds(getfd, {&theirs, 1});
    ASSERT_EQ(destination_client->next(), kDone);
    source_end.reset();
    destination_end.reset();
    ASSERT_EQ(destination_client->call(request("migrate-incoming", {{"uri", "fd:mig"}})), kDone);
    ASSERT_EQ(call("migrate", {{"uri", "fd:mig"}}), kDone);
    EXPECT_EQ(statuses(*client, "completed").back(), "completed");
    EXPECT_EQ(desc(call("closefd", {{"fdname", "mig"}})), "File descriptor named 'mig' not found");
}

TEST_F(MigrationTest, PersonAtThePromptWaitsForTheEnd) {
    make_pair();
    ASSERT_EQ(destination_client->call(request("migrate-incoming", {{"uri", uri()}})), kDone);
    QmpClient person = vm->person();
    person.until("(qemu) ");
    person.send("migrate " + uri() + "\n");
    EXPECT_TRUE(person.until("(qemu) ").ends_with(uri() + "\x1b[K\r\n(qemu) "));
    EXPECT_EQ(call("query-migrate")["return"]["status"], "completed");
}

TEST_F(MigrationTest, PersonAtThePromptSeesWhyItFailed) {
    make_pair();
    QmpClient person = vm->person();
    person.until("(qemu) ");
    person.send("migrate " + uri() + "\n");
    const std::string text = person.until("(qemu) ");
    EXPECT_NE(text.find("\r\nError: "), std::string::npos) << text;
    EXPECT_NE(text.find(directory), std::string::npos) << text;
}

}  // namespace
}  // namespace ferry::monitor
