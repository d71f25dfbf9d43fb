// SPDX-License-Identifier: BSD-2-Clause
// ferryctl against monitors of real VMs, and what it prints.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/unit/monitor/fake-vm.h"
#include "tools/ferryctl/options.h"
#include "tools/ferryctl/progress.h"
#include "tools/ferryctl/run.h"
#include "tools/ferryctl/timeline-svg.h"
#include "tools/ferryctl/timeline.h"
#include "util/event-fd.h"

namespace ferry::ferryctl {
namespace {

using monitor::Json;
using system::RunState;
using test::FakeVm;
using Strings = std::vector<std::string>;

struct UsageCase {
    Strings arguments;
    std::string_view error;
};
class Usage : public testing::TestWithParam<UsageCase> {};
TEST_P(Usage, IsRefusedWithStatus2) {
    const auto options = parse_options(GetParam().arguments);
    ASSERT_FALSE(options);
    EXPECT_EQ(options.error().message(), GetParam().error);
    std::ostringstream out, err;
    EXPECT_EQ(run(GetParam().arguments, {out, err}), 2);
    EXPECT_EQ(out.str(), "");
    EXPECT_NE(err.str().find(GetParam().error), std::string::npos);
}
INSTANTIATE_TEST_SUITE_P(
    Table, Usage,
    testing::Values(UsageCase{{}, "no command given"},
                    UsageCase{{"warp"}, "unknown command 'warp'"},
                    UsageCase{{"-s", "x", "status", "--fast"}, "unknown option '--fast'"},
                    UsageCase{{"-x"}, "unknown option '-x'"},
                    UsageCase{{"status"}, "which VM? give its monitor with -s SOCKET"},
                    UsageCase{{"status", "-s"}, "-s wants a value"},
                    UsageCase{{"-s", "x", "qmp"}, "qmp wants JSON"},
                    UsageCase{{"-s", "x", "stop", "it"}, "'it' is one word too many"},
                    UsageCase{{"-s", "x", "stop", "--cap", "events"}, "--cap is for migrate only"},
                    UsageCase{{"-s", "x", "--json=1", "stop"}, "--json takes no value"},
                    UsageCase{{"-s", "x", "set", "a"}, "set wants NAME=VALUE, not 'a'"},
                    UsageCase{{"-s", "x", "info", "--svg", "f"}, "--svg is for migrate only"},
                    UsageCase{{"-s", "x", "migrate", "u", "--set", "a"},
                              "--set wants NAME=VALUE, not 'a'"}));

TEST(Options, MigrateTakesAllItsOptionsInAnyOrder) {
    const Strings arguments = {"migrate",
                               "--cap=events",
                               "tcp:h:1",
                               "-s",
                               "a",
                               "--destination",
                               "b",
                               "--downtime-limit",
                               "20",
                               "--set",
                               "x-peer-timeout=5000",
                               "--no-progress"};
    const auto options = parse_options(arguments);
    ASSERT_TRUE(options);
    EXPECT_EQ(options->action, Action::Migrate);
    EXPECT_EQ(options->argument, "tcp:h:1");
    EXPECT_EQ(options->destination, "b");
    EXPECT_EQ(options->capabilities, Strings{"events"});
    EXPECT_EQ(options->parameters, (std::vector<std::pair<std::string, std::string>>{
                                       {"downtime-limit", "20"}, {"x-peer-timeout", "5000"}}));
    EXPECT_EQ(options->progress, Progress::Hidden);
}

TEST(Options, HelpNeedsNothingElse) {
    std::ostringstream out, err;
    const Strings arguments = {"migrate", "--help"};
    EXPECT_EQ(run(arguments, {out, err}), 0);
    EXPECT_TRUE(out.str().starts_with("Usage: ferryctl"));
}

TEST(BytesText, PicksTheUnit) {
    EXPECT_EQ(bytes_text(0), "0 B");
    EXPECT_EQ(bytes_text(1023), "1023 B");
    EXPECT_EQ(bytes_text(1536), "1.5 KiB");
    EXPECT_EQ(bytes_text(UINT64_MAX), "16.0 EiB");
}

TEST(Progress, ShowsHowMuchIsLeftAndWhoHoldsEverybodyUp) {
    const Json info = Json::parse(R"({"status": "active", "vfio": {"transferred": 1024},
        "ram": {"total": 4096, "remaining": 1024, "mbps": 12.5, "dirty-sync-count": 2},
        "x-pending-calls": [{"who": "net0", "call": "set state stop", "pending-ms": 2500}]})");
    EXPECT_EQ(progress_line(info),
              "[##################------]  75%  1.0 KiB left, 12 Mbit/s, pass 2, devices 1.0 KiB  "
              "active, waiting for net0: set state stop since 2 s");
    EXPECT_EQ(progress_line(Json::parse(R"({"status": "setup"})")), "setup");
    const Json busy = Json::parse(R"({"status": "active", "expected-downtime": 250, "ram":
        {"total": 4096, "remaining": 0, "page-size": 4096, "dirty-pages-rate": 256}})");
    EXPECT_NE(progress_line(busy).find(", guest writes 1.0 MiB/s, pause about 250 ms  active"),
              std::string::npos)
        << progress_line(busy);
}

TEST(Timeline, EntriesThatMakeNoSenseAreLeftOut) {
    const Json timeline = Json::parse(R"([1, {}, {"who": "a", "step": "b", "begin-ns": 5,
        "end-ns": 4}, {"who": "a", "step": "b", "begin-ns": "x", "end-ns": 4},
        {"who": "a", "step": "b", "begin-ns": 1, "end-ns": 4, "bytes": -1}])");
    const auto steps = steps_from_json(timeline);
    ASSERT_EQ(steps.size(), 1U);
    EXPECT_EQ(steps[0].bytes, 0U);
    EXPECT_TRUE(steps_from_json(Json(7)).empty());
}

constexpr int64_t kMs = 1'000'000;

TEST(Timeline, PauseBeginsWithTheLastStopAndSharesTheClockOfOneHost) {
    const Pause pause =
        find_pause({{"vm", "stop", 1 * kMs, 2 * kMs},
                    {"vm", "pre-copy", 3 * kMs, 100 * kMs},
                    {"net0", "stop", 101 * kMs, 102 * kMs},
                    {"vm", "stop", 100 * kMs, 103 * kMs}},
                   {{"vm", "load", 4 * kMs, 108 * kMs}, {"net0", "start", 109 * kMs, 110 * kMs}});
    EXPECT_EQ(pause.clocks, Pause::Clocks::Shared);
    ASSERT_EQ(pause.source.size(), 2U);
    EXPECT_EQ(pause.source[0].who, "vm");
    ASSERT_EQ(pause.destination.size(), 2U);
    EXPECT_EQ(pause.destination[0].begin_ns, 100 * kMs);
}

TEST(Timeline, DestinationWithAnotherClockHasAZeroOfItsOwn) {
    const Pause pause = find_pause(
        {{"vm", "stop", 100 * kMs, 103 * kMs}},
        {{"vm", "load", 900 * kMs, 990 * kMs}, {"vm", "validate", 985 * kMs, 995 * kMs}});
    EXPECT_EQ(pause.clocks, Pause::Clocks::Separate);
    EXPECT_EQ(pause.destination_zero_ns, 985 * kMs);
    EXPECT_NE(pause_text(pause, 80).find("different clocks"), std::string::npos);
}

TEST(Timeline, TextIsAlignedAndBarsShowWhen) {
    const Pause pause =
        find_pause({{"vm", "stop", 0, 4 * kMs}, {"net0", "save", 4 * kMs, 10 * kMs, 2048}}, {});
    EXPECT_EQ(pause_text(pause, 80),
              "The pause, 10.00 ms:\n"
              "side         device  step   begin ms  length ms       bytes\n"
              "source       vm      stop       0.00       4.00              |######           |\n"
              "source       net0    save       4.00       6.00     2.0 KiB  |      ###########|\n");
    EXPECT_EQ(pause_text({}, 80), "");
}

TEST(Timeline, PhasesHaveTimesAndBytes) {
    const std::vector<Step> source = {{"vm", "setup", 0, 2 * kMs, 512},
                                      {"vm", "pre-copy", 2 * kMs, 90 * kMs, 3 << 20},
                                      {"net0", "save", 50 * kMs, 60 * kMs, 1 << 20},
                                      {"vm", "stop", 90 * kMs, 95 * kMs},
                                      {"vm", "save", 95 * kMs, 100 * kMs, 2048}};
    EXPECT_EQ(phases_text(source, find_pause(source, {})),
              "The phases:\n"
              "setup               2.00 ms       512 B\n"
              "pre-copy           88.00 ms     3.0 MiB\n"
              "pause              10.00 ms     2.0 KiB\n");
    EXPECT_EQ(phases_text({}, {}), "");
}

TEST(Timeline, JsonHasTheTimesInThePause) {
    const Pause pause = find_pause(
        {{"vm", "stop", 5 * kMs, 9 * kMs}, {"net0", "save", 9 * kMs, 15 * kMs, 2048}}, {});
    EXPECT_EQ(pause_json(pause), Json::parse(R"({"length-ms": 10.0, "clocks": "shared", "steps": [
        {"side": "source", "device": "vm", "step": "stop", "begin-ms": 0.0, "length-ms": 4.0,
         "bytes": 0},
        {"side": "source", "device": "net0", "step": "save", "begin-ms": 4.0, "length-ms": 6.0,
         "bytes": 2048}]})"));
    EXPECT_EQ(pause_json({}), Json::parse(R"({"length-ms": 0, "clocks": "shared", "steps": []})"));
}

TEST(Picture, HasABarForEachStepAtItsTime) {
    const Pause pause =
        find_pause({{"vm", "stop", 0, 5 * kMs}, {"net0", "save", 5 * kMs, 10 * kMs, 2048}}, {});
    const std::string svg = pause_svg(pause, "title");
    EXPECT_TRUE(svg.starts_with("<svg ")) << svg;
    EXPECT_TRUE(svg.ends_with("</svg>\n")) << svg;
    // The second half of 800 pixels that begin at 300.
    EXPECT_NE(svg.find("<rect x=\"300.0\" y=\"60.0\" width=\"400.0\""), std::string::npos) << svg;
    EXPECT_NE(svg.find("<rect x=\"700.0\" y=\"82.0\" width=\"400.0\""), std::string::npos) << svg;
    EXPECT_NE(svg.find("source: net0 save: 5.00 ms from 5.00 ms, 2.0 KiB"), std::string::npos);
}

TEST(Picture, NamesCannotBreakOut) {
    const Pause pause = find_pause({{"</svg><script>\"&\n", "stop", 0, 5 * kMs}}, {});
    const std::string svg = pause_svg(pause, "<b>");
    EXPECT_EQ(svg.find("<script>"), std::string::npos);
    EXPECT_NE(svg.find("&lt;/svg&gt;&lt;script&gt;&quot;&amp; "), std::string::npos) << svg;
    EXPECT_NE(svg.find("&lt;b&gt;"), std::string::npos);
    EXPECT_TRUE(pause_svg({}, "").ends_with("</svg>\n"));
}

// Two VMs whose monitors listen on real sockets.
class FerryctlTest : public testing::Test {
 protected:
    FerryctlTest() {
        std::string pattern = "/tmp/ferry-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
        serve(source, "source");
        serve(destination, "destination");
    }
    ~FerryctlTest() override { std::filesystem::remove_all(directory); }

    void serve(FakeVm& vm, const std::string& name) {
        const auto address = util::parse_char_address("unix:" + path(name) + ",server=on,wait=off");
        vm.vm.loop.run([&] {
            vm.monitor->add_qmp(*monitor::open_monitor_transport(vm.vm.loop, *address),
                                monitor::Layout::Line);
        });
    }
    std::string path(const std::string& name) const { return directory + "/" + name; }
    int ferryctl(Strings arguments, const std::string& vm = "source") {
        arguments.insert(arguments.begin(), {"-s", path(vm)});
        out.str("");
        err.str("");
        return run(arguments, {out, err});
    }
    std::string uri() const { return "unix:" + path("migration"); }
    void listen() {
        const Json request = {{"execute", "migrate-incoming"}, {"arguments", {{"uri", uri()}}}};
        ASSERT_EQ(ferryctl({"qmp", request.dump()}, "destination"), 0) << err.str();
    }

    util::SystemClock clock;
    std::string directory;
    FakeVm source{clock, RunState::PreLaunch};
    FakeVm destination{clock, RunState::InMigrate};
    std::ostringstream out, err;
};

TEST_F(FerryctlTest, StatusStopAndCont) {
    EXPECT_EQ(ferryctl({"cont"}), 0);
    EXPECT_EQ(out.str(), "");
    EXPECT_EQ(ferryctl({"status"}), 0);
    EXPECT_EQ(out.str(), "VM: running\n");
    EXPECT_EQ(ferryctl({"stop"}), 0);
    EXPECT_EQ(ferryctl({"status", "--json"}), 0);
    EXPECT_EQ(Json::parse(out.str()), Json::parse(R"({"running": false, "status": "paused"})"));
}

TEST_F(FerryctlTest, ErrorsOfTheVmAreOnStderrWithStatus1) {
    EXPECT_EQ(ferryctl({"qmp", R"({"execute": "warp"})"}), 1);
    EXPECT_EQ(err.str(), "ferryctl: The command warp has not been found\n");
    EXPECT_EQ(ferryctl({"qmp", "{"}), 1);
    EXPECT_EQ(ferryctl({"status"}, "nobody"), 1);
    EXPECT_NE(err.str().find(path("nobody")), std::string::npos);
}

TEST_F(FerryctlTest, VmThatDoesNotListenYetIsWaitedForAsLongAsToldTo) {
    FakeVm late(clock, RunState::PreLaunch);
    const Strings arguments = {"-s", path("late"), "status"};
    Console console{out, err};
    unsigned asked = 0;
    console.try_again = [&](const std::string& socket, unsigned attempts) {
        EXPECT_EQ(socket, path("late"));
        EXPECT_EQ(attempts, ++asked);
        return attempts < 3;
    };
    EXPECT_EQ(run(arguments, console), 1);
    EXPECT_EQ(asked, 3U);
    EXPECT_NE(err.str().find("No such file or directory"), std::string::npos) << err.str();
    console.try_again = [&](const std::string&, unsigned attempts) {
        if (attempts == 2) serve(late, "late");
        return true;
    };
    EXPECT_EQ(run(arguments, console), 0);
    EXPECT_EQ(out.str(), "VM: prelaunch\n");
}

TEST_F(FerryctlTest, WhatIsNoMonitorIsNotWaitedFor) {
    const Strings arguments = {"-s", "/dev/null/x", "status"};
    Console console{out, err};
    console.try_again = [](const std::string&, unsigned) {
        ADD_FAILURE();
        return false;
    };
    EXPECT_EQ(run(arguments, console), 1);
}

TEST_F(FerryctlTest, MigrateShowsWhatThePauseWasSpentOnAtBothEnds) {
    ASSERT_EQ(ferryctl({"cont"}), 0);
    listen();
    ASSERT_EQ(ferryctl({"migrate", uri(), "--destination", path("destination"), "--cap",
                        "return-path", "--max-bandwidth", "1G", "--no-progress"}),
              0)
        << err.str();
    const std::string text = out.str();
    EXPECT_TRUE(text.starts_with("Migration completed after ")) << text;
    EXPECT_NE(text.find("\nsource       vm      stop "), std::string::npos) << text;
    EXPECT_NE(text.find("\ndestination  vm      start "), std::string::npos) << text;
    EXPECT_NE(text.find("\npre-copy "), std::string::npos) << text;
    EXPECT_LT(text.find("pre-copy"), text.find("The pause,")) << text;  // a phase, no part of it
    EXPECT_EQ(ferryctl({"status"}), 0);
    EXPECT_EQ(out.str(), "VM: postmigrate\nmigration: completed\n");
    EXPECT_EQ(ferryctl({"status"}, "destination"), 0);
    EXPECT_EQ(out.str(), "VM: running\nmigration: completed\n");
}

TEST_F(FerryctlTest, MigrateForPrograms) {
    ASSERT_EQ(ferryctl({"cont"}), 0);
    listen();
    ASSERT_EQ(ferryctl({"migrate", uri(), "--json", "--destination", path("destination")}), 0)
        << err.str();
    const Json answer = Json::parse(out.str());
    EXPECT_EQ(answer["status"], "completed");
    EXPECT_GT(answer["pause"]["length-ms"].get<double>(), 0);
    EXPECT_FALSE(answer["pause"]["steps"].empty());
    EXPECT_FALSE(answer["timeline"]["source"].empty());
    EXPECT_FALSE(answer["timeline"]["destination"].empty());
    EXPECT_FALSE(answer.contains("x-timeline"));
}

TEST_F(FerryctlTest, PictureIsWrittenWhenTheVmHasArrived) {
    ASSERT_EQ(ferryctl({"cont"}), 0);
    EXPECT_EQ(ferryctl({"migrate", uri(), "--svg", "/nonexistent/x"}), 1);
    EXPECT_NE(err.str().find("/nonexistent/x"), std::string::npos) << err.str();
    EXPECT_EQ(ferryctl({"info"}), 0);
    EXPECT_EQ(out.str(), "none\n");  // it has not been tried
    listen();
    ASSERT_EQ(ferryctl({"migrate", uri(), "-d", path("destination"), "--svg", path("p.svg")}), 0)
        << err.str();
    std::ifstream file(path("p.svg"));
    const std::string svg((std::istreambuf_iterator<char>(file)), {});
    EXPECT_TRUE(svg.starts_with("<svg ")) << svg;
    EXPECT_NE(svg.find("source: vm stop"), std::string::npos) << svg;
    EXPECT_NE(svg.find("destination: vm start"), std::string::npos) << svg;
}

TEST_F(FerryctlTest, SetChangesParametersAndCapabilities) {
    EXPECT_EQ(ferryctl({"set", "downtime-limit=77"}), 0) << err.str();
    EXPECT_EQ(ferryctl({"set", "return-path=on"}), 0) << err.str();
    EXPECT_EQ(ferryctl({"set", "return-path=7"}), 1);
    EXPECT_EQ(ferryctl({"set", "warp=7"}), 1);
    EXPECT_EQ(err.str(), "ferryctl: Parameter 'warp' is unexpected\n");
    EXPECT_EQ(ferryctl({"qmp", R"({"execute": "query-migrate-parameters"})", "--json"}), 0);
    EXPECT_EQ(Json::parse(out.str())["downtime-limit"], 77);
    EXPECT_EQ(ferryctl({"cancel"}), 0) << err.str();
}

TEST_F(FerryctlTest, InterruptionCancelsAndIsStatus1) {
    ASSERT_EQ(ferryctl({"set", "pause-before-switchover=on"}), 0);
    ASSERT_EQ(ferryctl({"cont"}), 0);
    listen();
    auto interrupt = util::EventFd::create();
    ASSERT_TRUE(interrupt);
    interrupt->signal();  // at the first look
    const Strings arguments = {"-s", path("source"), "migrate", uri(), "--no-progress"};
    Console console{out, err};
    console.interrupt_fd = interrupt->fd().raw();
    EXPECT_EQ(run(arguments, console), 1);
    EXPECT_EQ(err.str(), "ferryctl: the migration was cancelled\n");
    EXPECT_EQ(ferryctl({"status"}), 0);
    EXPECT_EQ(out.str(), "VM: running\nmigration: cancelled\n");
}

TEST_F(FerryctlTest, FailedMigrationSaysWhyAndIsStatus1) {
    ASSERT_EQ(ferryctl({"cont"}), 0);
    EXPECT_EQ(ferryctl({"migrate", uri(), "--no-progress"}), 1);
    EXPECT_TRUE(err.str().starts_with("ferryctl: migration failed: ")) << err.str();
    EXPECT_NE(err.str().find(path("migration")), std::string::npos) << err.str();
    EXPECT_EQ(ferryctl({"migrate", uri(), "--set", "xbzrle-cache-size=1048576"}), 1);
    EXPECT_EQ(
        err.str(),
        "ferryctl: Parameter 'xbzrle-cache-size' is not supported: it can only be 67108864\n");
}

TEST_F(FerryctlTest, ProgressGoesToAFileLineByLineAndToATerminalInOneLine) {
    ASSERT_EQ(ferryctl({"cont"}), 0);
    EXPECT_EQ(ferryctl({"migrate", uri()}), 1);
    EXPECT_TRUE(out.str().ends_with("failed\n")) << out.str();
    out.str("");
    const Strings arguments = {"-s", path("source"), "migrate", uri()};
    EXPECT_EQ(run(arguments, {out, err, Console::Kind::Terminal, 20}), 1);
    EXPECT_TRUE(out.str().starts_with("\r")) << out.str();
    EXPECT_TRUE(out.str().ends_with("failed\033[K\n")) << out.str();
}

}  // namespace
}  // namespace ferry::ferryctl
