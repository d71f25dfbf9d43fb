// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "system/runstate.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::system {
namespace {

// What happened, in order, over all handlers and vCPUs.
class Journal {
 public:
    void add(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
    }
    std::vector<std::string> lines() const {
        const std::lock_guard lock(mutex_);
        return lines_;
    }

 private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

std::string describe(const std::string& who, Pass pass, VmChange change) {
    return who + (pass == Pass::Prepare ? " prepare-" : " ") +
           (change.direction == Direction::Stop ? "stop" : "start");
}

class Handler final : public VmChangeHandler {
 public:
    Handler(Journal& journal, std::string name, unsigned depth)
        : journal_(journal),
          name_(std::move(name)),
          depth_(depth),
          worker_(std::move(*util::Worker::create("test-device"))) {}

    std::string_view name() const override { return name_; }
    unsigned depth() const override { return depth_; }
    bool has_prepare() const override { return true; }
    void vm_change(Pass pass, VmChange change, Done done) override {
        if (const auto hook = std::exchange(when_asked, {})) hook();
        worker_->post([this, pass, change, done = std::move(done)]() mutable {
            const std::string what = describe(name_, pass, change);
            journal_.add(what);
            if (what == fail_at) return done(make_errno(EIO, "{}", what));
            done({});
        });
    }

    std::string fail_at;
    std::function<void()> when_asked;  // once, on the loop's thread

 private:
    Journal& journal_;
    std::string name_;
    unsigned depth_;
    std::unique_ptr<util::Worker> worker_;
};

class Vcpus final : public VcpuControl {
 public:
    explicit Vcpus(Journal& journal) : journal_(journal) {}
    void pause(Done done) override {
        journal_.add("vcpus pause");
        done({});
    }
    void resume() override { journal_.add("vcpus resume"); }

 private:
    Journal& journal_;
};

class RunStateTest : public testing::Test {
 protected:
    RunStateTest() {
        loop.run([&] {
            controller.set_vcpus(&vcpus);
            registrations.push_back(controller.add_handler(bus));
            registrations.push_back(controller.add_handler(device));
            registrations.push_back(controller.on_event([this](RunStateEvent event) {
                journal.add(event == RunStateEvent::Stop ? "STOP" : "RESUME");
            }));
        });
    }
    ~RunStateTest() override {
        loop.run([&] { registrations.clear(); });
    }

    Result<> stop(RunState to) {
        return call([&](Done done) { controller.stop(to, std::move(done)); });
    }
    Result<> start() {
        return call([&](Done done) { controller.start(std::move(done)); });
    }
    Result<> call(const std::function<void(Done)>& request) {
        std::optional<Result<>> outcome;
        loop.run([&] { request([&](Result<> result) { outcome = std::move(result); }); });
        EXPECT_TRUE(loop.wait_for([&] { return outcome.has_value(); }));
        return std::move(*outcome);
    }

    test::TestEnv env;
    test::TestLoop loop{env.clock};
    Journal journal;
    RunStateController controller{loop, env.env, RunState::PreLaunch};
    Vcpus vcpus{journal};
    Handler bus{journal, "bus", 1};
    Handler device{journal, "device", 2};
    std::vector<util::Registration> registrations;
};

TEST_F(RunStateTest, StartGoesFromParentsToChildrenAndStopTheOtherWay) {
    ASSERT_TRUE(start());
    ASSERT_TRUE(stop(RunState::Paused));
    const std::vector<std::string> expected{"bus prepare-start",
                                            "device prepare-start",
                                            "bus start",
                                            "device start",
                                            "RESUME",
                                            "vcpus resume",
                                            "vcpus pause",
                                            "device prepare-stop",
                                            "bus prepare-stop",
                                            "device stop",
                                            "bus stop",
                                            "STOP"};
    EXPECT_EQ(journal.lines(), expected);
    EXPECT_EQ(controller.state(), RunState::Paused);
}

TEST_F(RunStateTest, HandlerThatLeavesBeforeItsTurnIsNotAsked) {
    ASSERT_TRUE(start());
    const size_t before = journal.lines().size();
    device.when_asked = [this] { registrations.erase(registrations.begin()); };  // the bus
    ASSERT_TRUE(stop(RunState::Paused));
    auto lines = journal.lines();
    lines.erase(lines.begin(), lines.begin() + static_cast<ptrdiff_t>(before));
    const std::vector<std::string> expected{"vcpus pause", "device prepare-stop", "device stop",
                                            "STOP"};
    EXPECT_EQ(lines, expected);
}

TEST_F(RunStateTest, FailedStopIsUndoneAndTheVmGoesOn) {
    ASSERT_TRUE(start());
    device.fail_at = "device stop";
    const Result<> stopped = stop(RunState::FinishMigrate);
    ASSERT_FALSE(stopped);
    EXPECT_NE(stopped.error().message().find("device stop"), std::string::npos);
    EXPECT_EQ(controller.state(), RunState::Running);
    const auto lines = journal.lines();
    ASSERT_GE(lines.size(), 3U);
    EXPECT_EQ(lines[lines.size() - 2], "device start");  // everybody was told to start again
    EXPECT_EQ(lines.back(), "vcpus resume");
}

TEST_F(RunStateTest, FailedStartLeavesTheVmStoppedAndVcpusStandStill) {
    bus.fail_at = "bus start";
    ASSERT_FALSE(start());
    EXPECT_EQ(controller.state(), RunState::PreLaunch);
    for (const std::string& line : journal.lines()) {
        EXPECT_NE(line, "vcpus resume");
        EXPECT_NE(line, "RESUME");
    }
    EXPECT_EQ(journal.lines().back(), "bus stop");
}

TEST_F(RunStateTest, StopOfAStoppedVmOnlyChangesTheState) {
    ASSERT_TRUE(stop(RunState::FinishMigrate));
    EXPECT_TRUE(journal.lines().empty());
    EXPECT_EQ(controller.state(), RunState::FinishMigrate);
}

TEST_F(RunStateTest, CommandsWhileAMigrationHoldsTheVm) {
    ASSERT_TRUE(start());
    ASSERT_TRUE(stop(RunState::FinishMigrate));
    const Result<> cont = call([&](Done done) { controller.user_cont(std::move(done)); });
    ASSERT_FALSE(cont);
    EXPECT_EQ(cont.error().message(), "Migration is not finalized yet");
    ASSERT_TRUE(call([&](Done done) { controller.user_stop(std::move(done)); }));
    EXPECT_EQ(controller.state(), RunState::FinishMigrate);
    EXPECT_TRUE(controller.user_stopped_meanwhile());
}

TEST_F(RunStateTest, IllegalChangeIsRefusedByName) {
    ASSERT_TRUE(start());
    bool refused = false;
    loop.run([&] {
        const Result<> result = controller.set_state(RunState::PostMigrate);
        refused = !result && result.error().message().find("running") != std::string::npos;
    });
    EXPECT_TRUE(refused);
}

TEST_F(RunStateTest, RequestsAreServedInOrder) {
    std::vector<std::string> done;
    loop.run([&] {
        controller.start([&](Result<> r) { done.push_back(r ? "start" : "start failed"); });
        controller.stop(RunState::Paused,
                        [&](Result<> r) { done.push_back(r ? "stop" : "stop failed"); });
        controller.start([&](Result<> r) { done.push_back(r ? "again" : "again failed"); });
    });
    ASSERT_TRUE(loop.wait_for([&] { return done.size() == 3; }));
    EXPECT_EQ(done, (std::vector<std::string>{"start", "stop", "again"}));
    EXPECT_EQ(controller.state(), RunState::Running);
}

}  // namespace
}  // namespace ferry::system
