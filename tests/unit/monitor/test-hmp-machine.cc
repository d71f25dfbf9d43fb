// SPDX-License-Identifier: BSD-2-Clause
// HMP about the machine: texts, what is sent to QMP, and completion.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/monitor/fake-vm.h"

namespace ferry::monitor {
namespace {

using testing::ElementsAre;

class NobodyWaits final : public HmpHost {
    void when_migration_ended(std::move_only_function<void()> ended) override { ended(); }
    MigrationGlobals migration_globals() const override { return {}; }
};

// Lines, and the QMP commands that they became.
class HmpMachineTest : public testing::Test {
 protected:
    HmpMachineTest() {
        for (const char* name :
             {"device_add", "object-add", "object-del", "qom-set", "qom-get", "calc-dirty-rate",
              "set-vcpu-dirty-limit", "cancel-vcpu-dirty-limit", "announce-self", "migrate-recover",
              "query-migrate-parameters"}) {
            table.add({.name = name,
                       .arguments = {},
                       .handler =
                           [this, name](const Invocation& call, Reply reply) {
                               asked.emplace_back(name, call.arguments);
                               std::move(reply).ok(answer);
                           },
                       .beyond = Beyond::Passed});
        }
    }
    std::string line(const std::string& text) {
        asked.clear();
        std::string printed = "(nothing)";
        hmp.run(text, HmpSource::QmpCommand, fds, [&](const std::string& out) { printed = out; });
        return printed;
    }
    Json last() const { return asked.empty() ? Json() : asked.back().second; }

    CommandTable table;
    NobodyWaits host;
    Hmp hmp{table, host};
    FdSets sets;
    MonitorFds fds{sets};
    Json answer = Json::object();
    std::vector<std::pair<std::string, Json>> asked;
};

TEST_F(HmpMachineTest, OptionLinesBecomeMembers) {
    EXPECT_EQ(line("device_add vfio-pci,host=0:1,,2,id=d,migration-events"), "");
    EXPECT_EQ(
        last(),
        (Json{{"driver", "vfio-pci"}, {"host", "0:1,2"}, {"id", "d"}, {"migration-events", "on"}}));
    EXPECT_EQ(line("object_add memory-backend-file,id=5,size=2M,share=on,mem-path=7"), "");
    EXPECT_EQ(last(), (Json{{"qom-type", "memory-backend-file"},
                            {"id", "5"},
                            {"size", 2 << 20},
                            {"share", true},
                            {"mem-path", "7"}}));
    EXPECT_EQ(line("object_add id=m,qom-type=memory-backend-ram,size=4096"), "");
    EXPECT_EQ(last()["qom-type"], "memory-backend-ram");
}

TEST_F(HmpMachineTest, ValuesHaveTheKindTheyLookLike) {
    line("qom-set d0 p 5");
    EXPECT_EQ(last()["value"], 5);
    line("qom-set d0 p true");
    EXPECT_EQ(last()["value"], true);
    line("qom-set d0 p off");
    EXPECT_EQ(last()["value"], "off");
    answer = "auto";
    EXPECT_EQ(line("qom-get d0 p"), "\"auto\"\n");
}

TEST_F(HmpMachineTest, DirtyRateIsAnnouncedInTwoLines) {
    EXPECT_EQ(line("calc_dirty_rate 3 200"),
              "Starting dirty rate measurement with period 3 seconds\n"
              "[Please use 'info dirty_rate' to check results]\n");
    EXPECT_EQ(last(), (Json{{"calc-time", 3}, {"sample-pages", 200}}));
    line("calc_dirty_rate -b 3");
    EXPECT_EQ(last()["mode"], "dirty-bitmap");
    EXPECT_EQ(line("calc_dirty_rate -r -b 3"),
              "Either dirty ring or dirty bitmap can be specified!\n");
    EXPECT_EQ(line("calc_dirty_rate soon"),
              "calc_dirty_rate: integer expected\n"
              "Try \"help calc_dirty_rate\" for more information\n");
    EXPECT_EQ(line("calc_dirty_rate"),
              "calc_dirty_rate: integer expected\n"
              "Try \"help calc_dirty_rate\" for more information\n");
    EXPECT_EQ(line("calc_dirty_rate 99999999999999999999999"),
              "calc_dirty_rate: integer expected\n"
              "Try \"help calc_dirty_rate\" for more information\n");
}

TEST_F(HmpMachineTest, AnnouncingTakesItsTimesFromTheParameters) {
    answer = {
        {"announce-initial", 1}, {"announce-max", 2}, {"announce-rounds", 3}, {"announce-step", 4}};
    EXPECT_EQ(line("announce_self eth0,eth1 me"), "");
    EXPECT_EQ(last(), Json::parse(R"({"initial": 1, "max": 2, "rounds": 3, "step": 4,
                                      "id": "me", "interfaces": ["eth0", "eth1"]})"));
}

TEST_F(HmpMachineTest, WhatTheHypervisorDoesNotHaveIsSaid) {
    EXPECT_EQ(line("info pci"), "Error: The command query-pci has not been found\n");
}

TEST_F(HmpMachineTest, WordsAreCompletedByWhatStandsBeforeThem) {
    EXPECT_THAT(hmp.complete("migrate_set_"),
                ElementsAre("migrate_set_capability", "migrate_set_parameter"));
    EXPECT_THAT(hmp.complete("  sto"), ElementsAre("stop"));
    EXPECT_THAT(hmp.complete("info migrate_c"), ElementsAre("migrate_capabilities"));
    EXPECT_THAT(hmp.complete("help device_"), ElementsAre("device_add", "device_del"));
    EXPECT_THAT(hmp.complete("migrate_set_capability postcopy-"),
                ElementsAre("postcopy-blocktime", "postcopy-preempt", "postcopy-ram"));
    EXPECT_THAT(hmp.complete("migrate_set_capability events o"), ElementsAre("off", "on"));
    EXPECT_THAT(hmp.complete("migrate_set_parameter down"), ElementsAre("downtime-limit"));
    EXPECT_TRUE(hmp.complete("stop ").empty());
    EXPECT_TRUE(hmp.complete("warp").empty());
}

TEST(HmpMachineText, Kvm) {
    const auto text = [](bool enabled, bool present) {
        return kvm_text({{"enabled", enabled}, {"present", present}});
    };
    EXPECT_EQ(text(true, true), "kvm support: enabled\n");
    EXPECT_EQ(text(false, true), "kvm support: disabled\n");
    EXPECT_EQ(text(false, false), "kvm support: not compiled\n");
}

TEST(HmpMachineText, CpusAndBackends) {
    EXPECT_EQ(cpus_text(Json::parse(R"([{"cpu-index": 0, "thread-id": 7},
                                        {"cpu-index": 1, "thread-id": 8}])")),
              "* CPU #0: thread_id=7\n  CPU #1: thread_id=8\n");
    EXPECT_EQ(memdev_text(Json::parse(R"([{"id": "m0", "size": 4096, "merge": false, "dump": true,
                  "prealloc": false, "share": true, "policy": "default", "host-nodes": []}])")),
              "memory backend: m0\n  size:  4096\n  merge: false\n  dump: true\n"
              "  prealloc: false\n  share: true\n  policy: default\n  host nodes: \n\n");
}

TEST(HmpMachineText, PciListsFunctionsAndTheirRegions) {
    const Json answer = Json::parse(R"([{"bus": 0, "devices": [
        {"bus": 0, "slot": 3, "function": 0, "class_info": {"class": 512,
         "desc": "Ethernet controller"}, "id": {"vendor": 32902, "device": 4110,
         "subsystem-vendor": 6900, "subsystem": 4352}, "irq": 10, "irq_pin": 1, "qdev_id": "net0",
         "regions": [
            {"bar": 0, "type": "memory", "address": 4273733632, "size": 131072,
             "prefetch": true, "mem_type_64": true},
            {"bar": 2, "type": "memory", "address": -1, "size": 4096,
             "prefetch": false, "mem_type_64": false},
            {"bar": 4, "type": "io", "address": 49152, "size": 64}]},
        {"bus": 0, "slot": 31, "function": 7, "class_info": {"class": 1664},
         "id": {"vendor": 1, "device": 2}, "irq_pin": 0, "qdev_id": "", "regions": []}]}])");
    EXPECT_EQ(pci_text(answer),
              "  Bus  0, device   3, function 0:\n"
              "    Ethernet controller: PCI device 8086:100e\n"
              "      PCI subsystem 1af4:1100\n"
              "      IRQ 10, pin A\n"
              "      BAR0: 64 bit prefetchable memory at 0xfebc0000 [0xfebdffff].\n"
              "      BAR2: 32 bit memory at 0xffffffffffffffff [0x00000ffe].\n"
              "      BAR4: I/O at 0xc000 [0xc03f].\n"
              "      id \"net0\"\n"
              "  Bus  0, device  31, function 7:\n"
              "    Class 1664: PCI device 0001:0002\n"
              "      id \"\"\n");
}

TEST(HmpMachineText, DirtyRateAndLimits) {
    const std::string text = dirty_rate_text(Json::parse(R"({"status": "measured",
        "start-time": 5, "calc-time": 1, "sample-pages": 512, "mode": "page-sampling",
        "dirty-rate": 42})"));
    EXPECT_TRUE(text.starts_with("Status: measured\n")) << text;
    EXPECT_NE(text.find("Sample Pages: 512 (per GB)\n"), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("Mode: page-sampling\nDirty rate: 42 (MB/s)\n")) << text;
    EXPECT_TRUE(dirty_rate_text(Json::parse(R"({"status": "unstarted", "start-time": 0,
        "calc-time": 0, "sample-pages": 0, "mode": "page-sampling"})"))
                    .ends_with("Dirty rate: (not ready)\n"));
    EXPECT_EQ(dirty_limit_text(Json::array()), "Dirty page limit not enabled!\n");
}

}  // namespace
}  // namespace ferry::monitor
