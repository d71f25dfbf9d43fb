// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "tests/unit/monitor/fake-vm.h"

namespace ferry::monitor {
namespace {

using system::RunState;
using test::FakeVm;
using test::QmpClient;

class HmpTest : public testing::Test {
 protected:
    // What a line answers by human-monitor-command.
    std::string hmp(const std::string& line) {
        return client.call({{"execute", "human-monitor-command"},
                            {"arguments", {{"command-line", line}}}})["return"];
    }

    util::SystemClock clock;
    FakeVm vm{clock, RunState::PreLaunch};
    QmpClient client = vm.client();
};

TEST_F(HmpTest, LinesEndInCrLfAndStatusNamesTheStoppedState) {
    EXPECT_EQ(hmp("info status"), "VM status: paused (prelaunch)\r\n");
    EXPECT_EQ(hmp("c"), "");
    EXPECT_EQ(hmp("info status"), "VM status: running\r\n");
    EXPECT_EQ(hmp("stop"), "");
    EXPECT_EQ(hmp("info status"), "VM status: paused\r\n");
}

TEST_F(HmpTest, ErrorsOfCommandsAreTextInASuccess) {
    EXPECT_EQ(hmp("migrate_continue pre-switchover"),
              "Error: Migration not in expected state: none\r\n");
    EXPECT_EQ(hmp("migrate -d tcp:"), "Error: error parsing address ''\r\n");
}

TEST_F(HmpTest, WrongLinesAreExplained) {
    EXPECT_EQ(hmp(""), "");
    EXPECT_EQ(hmp("warp 9"), "unknown command: 'warp'\r\n");
    EXPECT_EQ(hmp("info warp"), "unknown command: 'info warp'\r\n");
    EXPECT_EQ(hmp("migrate -d"),
              "migrate: string expected\r\nTry \"help migrate\" for more information\r\n");
    EXPECT_EQ(hmp("stop now"),
              "stop: extraneous characters at the end of line\r\n"
              "Try \"help stop\" for more information\r\n");
    EXPECT_EQ(hmp("migrate_set_capability events maybe"),
              "Expected 'on' or 'off'\r\n"
              "Try \"help migrate_set_capability\" for more information\r\n");
}

TEST_F(HmpTest, CpuThatIsNotThereIsRefused) {
    const auto on_cpu = [this](int64_t cpu) {
        return client.call({{"execute", "human-monitor-command"},
                            {"arguments", {{"command-line", "info name"}, {"cpu-index", cpu}}}});
    };
    for (const int64_t cpu : {int64_t{-1}, int64_t{1}, INT64_MAX}) {
        EXPECT_EQ(on_cpu(cpu)["error"]["desc"], "Parameter 'cpu-index' expects a CPU number");
    }
    EXPECT_TRUE(on_cpu(0).contains("return"));
}

TEST_F(HmpTest, UnterminatedQuoteIsNoUri) {
    EXPECT_EQ(hmp("migrate -d \"unix:/x"), "unterminated string\r\n");
}

TEST_F(HmpTest, HelpKnowsEveryCommandOrOne) {
    EXPECT_EQ(hmp("help stop"), "stop|s -- stop the VM\r\n");
    const std::string all = hmp("help");
    for (const char* name : {"migrate [-d] [-r] uri", "migrate_cancel", "quit|q", "info what"}) {
        EXPECT_NE(all.find(name), std::string::npos) << name;
    }
    EXPECT_NE(hmp("info").find("info migrate -- "), std::string::npos);
}

TEST_F(HmpTest, NameAndVersionAreOneLine) {
    EXPECT_EQ(hmp("info name"), "guest\r\n");
    EXPECT_TRUE(hmp("info version").starts_with("10.0.0 (ferry-"));
}

TEST_F(HmpTest, CapabilitiesAndParametersAreListedInOrderAsSet) {
    EXPECT_EQ(hmp("migrate_set_capability events on"), "");
    EXPECT_NE(hmp("info migrate_capabilities").find("zero-blocks: off\r\nevents: on\r\n"),
              std::string::npos);
    EXPECT_EQ(hmp("migrate_set_parameter max-bandwidth 3"), "");
    EXPECT_EQ(hmp("migrate_set_parameter downtime-limit 20"), "");
    EXPECT_NE(hmp("info migrate_parameters")
                  .find("tls-creds: ''\r\ntls-hostname: ''\r\n"
                        "max-bandwidth: 3145728 bytes/second\r\n"
                        "avail-switchover-bandwidth: 0 bytes/second\r\n"
                        "downtime-limit: 20 ms\r\n"),
              std::string::npos);
    EXPECT_EQ(hmp("migrate_set_parameter warp 1"), "Error: invalid parameter value: warp\r\n");
}

TEST_F(HmpTest, MigrateByQmpDoesNotWaitAndSaysSo) {
    EXPECT_EQ(hmp("migrate unix:/nonexistent/x"),
              "terminal does not allow synchronous migration, continuing detached\r\n");
    ASSERT_TRUE(vm.vm.wait_over());
    EXPECT_NE(hmp("info migrate").find("Migration status: failed ("), std::string::npos);
}

TEST_F(HmpTest, QuotesKeepBlanksInAWord) {
    EXPECT_EQ(hmp("migrate -d \"exec:false ; false\""), "");
    ASSERT_TRUE(vm.vm.wait_over());
}

TEST_F(HmpTest, TerminalShowsPromptsAndRunsALineAtATime) {
    QmpClient person = vm.person();
    EXPECT_NE(person.until("(qemu) ").find("Ferry monitor"), std::string::npos);
    person.send("info status\ncont\r\ninfo status\n\n");
    EXPECT_TRUE(person.until("(qemu) ").ends_with(
        "\x1b[Dinfo status\x1b[K\r\nVM status: paused (prelaunch)\r\n(qemu) "));
    EXPECT_TRUE(person.until("(qemu) ").ends_with("\x1b[Dcont\x1b[K\r\n(qemu) "));
    EXPECT_EQ(person.until("(qemu) "), "\r\n(qemu) ");  // the LF behind CR
    EXPECT_TRUE(person.until("(qemu) ").ends_with("\r\nVM status: running\r\n(qemu) "));
    EXPECT_EQ(person.until("(qemu) "), "\r\n(qemu) ");
}

TEST_F(HmpTest, EndlessLineIsDropped) {
    QmpClient person = vm.person();
    person.until("(qemu) ");
    person.send("stop" + std::string(kMaxTypedBytes, ' ') + "\n");
    EXPECT_TRUE(person.until("(qemu) ").ends_with("\r\nline too long\r\n(qemu) "));
    person.send("info status\n");
    EXPECT_TRUE(person.until("(qemu) ").ends_with("\r\nVM status: paused (prelaunch)\r\n(qemu) "));
}

TEST(HmpText, MigrationHasTheKnownLayout) {
    const Json info = Json::parse(R"({"status": "completed", "total-time": 84, "setup-time": 5,
        "downtime": 2, "vfio": {"transferred": 2048}, "ram": {"transferred": 10240,
        "remaining": 0, "total": 8388608, "duplicate": 7, "normal": 2, "normal-bytes": 8192,
        "dirty-pages-rate": 0, "mbps": 112.25, "dirty-sync-count": 3, "page-size": 4096,
        "multifd-bytes": 0, "postcopy-requests": 0, "precopy-bytes": 9216, "downtime-bytes": 1024,
        "postcopy-bytes": 0, "pages-per-second": 100, "dirty-sync-missed-zero-copy": 0}})");
    const std::string text = migration_text(info);
    const size_t at = text.find("Migration status");
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(text.substr(0, at),
              "globals:\nstore-global-state: on\nonly-migratable: off\nsend-configuration: on\n"
              "send-section-footer: on\nsend-switchover-start: on\nclear-bitmap-shift: 18\n");
    EXPECT_NE(migration_text(info, {.stream = {}, .only_migratable = true})
                  .find("\nonly-migratable: on\n"),
              std::string::npos);
    EXPECT_EQ(text.substr(at),
              "Migration status: completed\n"
              "total time: 84 ms\n"
              "downtime: 2 ms\n"
              "setup: 5 ms\n"
              "transferred ram: 10 kbytes\n"
              "throughput: 112.25 mbps\n"
              "remaining ram: 0 kbytes\n"
              "total ram: 8192 kbytes\n"
              "duplicate: 7 pages\n"
              "normal: 2 pages\n"
              "normal bytes: 8 kbytes\n"
              "dirty sync count: 3\n"
              "page size: 4 kbytes\n"
              "multifd bytes: 0 kbytes\n"
              "pages-per-second: 100\n"
              "precopy ram: 9 kbytes\n"
              "downtime ram: 1 kbytes\n"
              "vfio device transferred: 2 kbytes\n");
}

TEST(HmpText, BlockedFailedAndListeningAreShown) {
    const std::string text = migration_text(Json::parse(R"({"status": "failed",
        "error-desc": "why", "blocked-reasons": ["one"],
        "socket-address": [{"type": "inet", "host": "h", "port": "1", "ipv4": true}],
        "x-pending-calls": [{"who": "net0", "call": "set state stop", "pending-ms": 5}]})"));
    EXPECT_TRUE(text.starts_with("Outgoing migration blocked:\n  one\nglobals:"));
    EXPECT_TRUE(
        text.ends_with("Migration status: failed (why)\ntotal time: 0 ms\n"
                       "socket address: [\n\ttcp:h:1\n]\n"
                       "waiting for 'net0': set state stop, 5 ms\n"));
}

}  // namespace
}  // namespace ferry::monitor
