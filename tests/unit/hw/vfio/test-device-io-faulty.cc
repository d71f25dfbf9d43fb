// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/device-io-observed.h"
#include "tests/support/errno-of.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using test::errno_of;
using test::Image;
using test::read_image;
using test::SoftRig;
using test::write_image;

// A test device behind a FaultyDeviceIo behind an ObservedDeviceIo, as a VMM stacks them.
class FaultyDevice : public testing::Test {
 protected:
    void script(std::string_view text) {
        const auto applied = control_->apply(text);
        EXPECT_TRUE(applied) << applied.error().message();
    }
    std::vector<std::string> calls() {
        std::vector<std::string> names;
        for (const auto& call : control_->log()) names.push_back(call.name);
        return names;
    }
    static hw::TestDeviceConfig config() {
        hw::TestDeviceConfig config;
        config.state_bytes = 0x2000;
        return config;
    }

    std::shared_ptr<FaultControl> control_ = std::make_shared<FaultControl>();
    SoftRig rig_{config(), [this](std::unique_ptr<VfioDeviceIo> io, util::Env& env) {
                     auto faulty =
                         std::make_unique<FaultyDeviceIo>(std::move(io), control_, env, "dev");
                     return std::make_unique<ObservedDeviceIo>(std::move(faulty), env, "dev");
                 }};
    VfioDeviceIo& io_ = rig_.io();
};

// ---- scripts

TEST(FaultScript, UnknownStatementIsRefusedByName) {
    for (const char* text :
         {"explode", "fail", "fail=", "fail=reset", "fail=reset:", "fail=:EIO", "fail=reset:EWHAT",
          "fail=reset:EIO+error", "fail=reset#0:EIO", "fail=reset#x:EIO", "hold=", "hold=#2",
          "short-reads=x", "empty-reads=3", "release=now", "fail=reset:EIO;;"}) {
        const auto control = FaultControl::parse(text);
        ASSERT_FALSE(control) << text;
        EXPECT_EQ(control.error().kind(), ErrorKind::InvalidArgument);
    }
}

TEST(FaultScript, AllStatementsAreUnderstood) {
    EXPECT_TRUE(FaultControl::parse(""));
    EXPECT_TRUE(FaultControl::parse(
        "fail=arc:running-p2p->stop:EIO;fail=read state#3:ENODEV;fail=arc:resuming->stop:EINVAL+"
        "error;hold=set state *#2;short-reads;short-writes=7;empty-reads;release"));
}

TEST_F(FaultyDevice, ScriptWithAMistakeChangesNothing) {
    EXPECT_FALSE(control_->apply("fail=reset:EIO;nonsense"));
    EXPECT_TRUE(io_.reset());
}

// ---- failing calls

TEST_F(FaultyDevice, CallFailsOnceWithTheGivenErrno) {
    script("fail=reset:ETIMEDOUT");
    const auto failed = io_.reset();
    EXPECT_EQ(errno_of(failed), ETIMEDOUT);
    EXPECT_NE(failed.error().message().find("dev: reset"), std::string::npos);
    EXPECT_TRUE(io_.reset());
}

TEST_F(FaultyDevice, NthCallFailsCountedFromTheRequest) {
    EXPECT_TRUE(io_.info());
    script("fail=get info#3:EIO");
    EXPECT_TRUE(io_.info());
    EXPECT_TRUE(io_.info());
    EXPECT_EQ(errno_of(io_.info()), EIO);
    EXPECT_TRUE(io_.info());
}

TEST_F(FaultyDevice, StarCountsAllCalls) {
    script("fail=*#2:EIO");
    EXPECT_TRUE(io_.info());
    EXPECT_EQ(errno_of(io_.reset()), EIO);
    EXPECT_TRUE(io_.info());
}

// Each call of the interface under its own name.
TEST_F(FaultyDevice, EveryCallCanFail) {
    const BorrowedFd none[1];
    const DmaLogRange range{0, 0x1000};
    util::Bitmap pages(1);
    std::byte word[4]{};
    const std::vector<std::pair<std::string, std::function<int()>>> all = {
        {"get info", [&] { return errno_of(io_.info()); }},
        {"get region info", [&] { return errno_of(io_.region_info(0)); }},
        {"get irq info", [&] { return errno_of(io_.irq_info(2)); }},
        {"set irqs", [&] { return errno_of(io_.set_irq_eventfds(2, 0, none)); }},
        {"disable irqs", [&] { return errno_of(io_.disable_irqs(2)); }},
        {"mask irq", [&] { return errno_of(io_.set_irq_masked(2, 0, true)); }},
        {"unmask irq", [&] { return errno_of(io_.set_irq_masked(2, 0, false)); }},
        {"set unmask eventfd",
         [&] { return errno_of(io_.set_irq_unmask_eventfd(2, 0, BorrowedFd())); }},
        {"reset", [&] { return errno_of(io_.reset()); }},
        {"read region 7", [&] { return errno_of(io_.region_read(7, 0, word)); }},
        {"write region 0", [&] { return errno_of(io_.region_write(0, 0, word)); }},
        {"map region 0", [&] { return errno_of(io_.region_map(0, 0, 4096)); }},
        {"get migration caps", [&] { return errno_of(io_.migration_caps()); }},
        {"get state", [&] { return errno_of(io_.mig_state()); }},
        {"set state stop", [&] { return errno_of(io_.set_mig_state(Stop)); }},
        {"get data size", [&] { return errno_of(io_.stop_copy_bytes()); }},
        {"probe dma log", [&] { return errno_of(io_.dma_logging_supported()); }},
        {"start dma log", [&] { return errno_of(io_.dma_logging_start({&range, 1}, 0x1000)); }},
        {"report dma log", [&] { return errno_of(io_.dma_logging_report(range, 4096, pages)); }},
        {"stop dma log", [&] { return errno_of(io_.dma_logging_stop()); }},
    };
    for (const auto& [name, call] : all) {
        script("fail=" + name + ":EREMOTEIO");
        EXPECT_EQ(call(), EREMOTEIO) << name;
        EXPECT_NE(call(), EREMOTEIO) << name;
    }
    EXPECT_EQ(*io_.mig_state(), Stop);  // the failed call had not moved it
}

TEST_F(FaultyDevice, CallsOfADataStreamCanFail) {
    auto stream = io_.set_mig_state(PreCopy);
    std::byte piece[64]{};
    script("fail=read state#2:EIO;fail=get precopy info:ENOMEM");
    EXPECT_TRUE((*stream)->read_some(piece));
    EXPECT_EQ(errno_of((*stream)->read_some(piece)), EIO);
    EXPECT_EQ(errno_of((*stream)->precopy_info()), ENOMEM);
    EXPECT_TRUE((*stream)->precopy_info());
    ASSERT_TRUE(io_.reset());
    stream = io_.set_mig_state(Resuming);
    script("fail=write state:ENOSPC");
    EXPECT_EQ(errno_of((*stream)->write_some(piece)), ENOSPC);
}

// ---- arcs

TEST_F(FaultyDevice, ArcFailsAndTheDeviceStaysBeforeIt) {
    script("fail=arc:running-p2p->stop:EIO");
    EXPECT_EQ(errno_of(io_.set_mig_state(StopCopy)), EIO);
    EXPECT_EQ(*io_.mig_state(), RunningP2P);
    EXPECT_TRUE(io_.set_mig_state(StopCopy));
}

TEST_F(FaultyDevice, ArcThatLosesTheDeviceLeavesItInErrorUntilReset) {
    auto stream = io_.set_mig_state(PreCopy);
    script("fail=arc:pre-copy->pre-copy-p2p:EIO+error");
    EXPECT_EQ(errno_of(io_.set_mig_state(StopCopy)), EIO);
    EXPECT_EQ(*io_.mig_state(), MigState::Error);
    EXPECT_EQ(errno_of(io_.set_mig_state(Running)), EINVAL);
    std::byte piece[16]{};
    EXPECT_EQ(errno_of((*stream)->read_some(piece)), ENODEV);
    ASSERT_TRUE(io_.reset());
    EXPECT_EQ(*io_.mig_state(), Running);
    EXPECT_TRUE(io_.set_mig_state(StopCopy));
    EXPECT_EQ(errno_of((*stream)->read_some(piece)), ENODEV);
}

TEST_F(FaultyDevice, FailingResetLeavesALostDeviceLost) {
    script("fail=arc:running->running-p2p:EIO+error;fail=reset:EIO");
    EXPECT_FALSE(io_.set_mig_state(Stop));
    EXPECT_FALSE(io_.reset());
    EXPECT_EQ(*io_.mig_state(), MigState::Error);
}

TEST_F(FaultyDevice, AnyArcIntoAStateCanBeNamed) {
    script("fail=arc:*->stop:EBUSY");
    EXPECT_EQ(errno_of(io_.set_mig_state(Resuming)), EBUSY);
    EXPECT_EQ(*io_.mig_state(), RunningP2P);
}

// ---- data

TEST_F(FaultyDevice, ShortReadsAndWritesMoveTheSameImage) {
    script("short-reads=3;short-writes=1");
    rig_.fill_state(5);
    const uint64_t digest = rig_.state_digest();
    auto saving = io_.set_mig_state(StopCopy);
    const Image image = read_image(**saving);
    EXPECT_GE(control_->count("read state"), image.size() / 3);
    ASSERT_TRUE(io_.reset());
    auto loading = io_.set_mig_state(Resuming);
    ASSERT_TRUE(write_image(**loading, image));
    EXPECT_EQ(control_->count("write state"), image.size());
    ASSERT_TRUE(io_.set_mig_state(Running));
    EXPECT_EQ(rig_.state_digest(), digest);
}

TEST_F(FaultyDevice, EmptyReadsComeInPreCopyOnly) {
    script("empty-reads");
    auto stream = io_.set_mig_state(PreCopy);
    std::byte piece[16];
    EXPECT_EQ((*stream)->read_some(piece)->bytes, 0);
    EXPECT_EQ((*stream)->read_some(piece)->bytes, 16);
    EXPECT_EQ((*stream)->read_some(piece)->bytes, 0);
    ASSERT_TRUE(io_.set_mig_state(StopCopy));
    EXPECT_EQ((*stream)->read_some(piece)->bytes, 16);
    EXPECT_EQ((*stream)->read_some(piece)->bytes, 16);
}

// ---- holding

TEST_F(FaultyDevice, HeldCallIsNamedAndGoesOnWhenReleased) {
    script("hold=set state stop");
    std::thread worker([&] { EXPECT_TRUE(io_.set_mig_state(Stop)); });
    control_->wait_until_held();
    ASSERT_EQ(control_->held().size(), 1);
    EXPECT_EQ(control_->held()[0].name, "set state stop");
    ASSERT_EQ(rig_.env().activity.snapshot().size(), 1);
    EXPECT_EQ(rig_.env().activity.snapshot()[0].who, "dev");
    EXPECT_EQ(rig_.env().activity.snapshot()[0].call, "set state stop");
    EXPECT_EQ(*io_.mig_state(), Running);
    script("release");
    worker.join();
    EXPECT_TRUE(control_->held().empty());
    EXPECT_TRUE(rig_.env().activity.snapshot().empty());
    EXPECT_EQ(*io_.mig_state(), Stop);
}

TEST_F(FaultyDevice, HeldArcIsInTheMiddleOfThePath) {
    script("hold=arc:running-p2p->stop");
    std::thread worker([&] { EXPECT_TRUE(io_.set_mig_state(Stop)); });
    control_->wait_until_held();
    EXPECT_EQ(*io_.mig_state(), RunningP2P);
    control_->release();
    worker.join();
    EXPECT_EQ(*io_.mig_state(), Stop);
}

TEST_F(FaultyDevice, EveryArcCanBeHeldInTurn) {
    for (uint32_t raw = 1; raw < kMigStateCount; ++raw) {
        for (uint32_t to_raw = 1; to_raw < kMigStateCount; ++to_raw) {
            const auto from = static_cast<MigState>(raw), to = static_cast<MigState>(to_raw);
            const auto path = mig_path(config().caps, from, to);
            if (!path || path->size() != 1) continue;
            SCOPED_TRACE(std::string(to_string(from)) + " -> " + std::string(to_string(to)));
            ASSERT_TRUE(io_.reset());
            const auto stream = io_.set_mig_state(from);
            control_->hold("arc:*");
            std::thread worker([&] { EXPECT_EQ(!!io_.set_mig_state(to), from != Resuming); });
            control_->wait_until_held();
            EXPECT_EQ(*io_.mig_state(), from);
            control_->release();
            worker.join();
            EXPECT_EQ(*io_.mig_state(), from == Resuming ? from : to);
        }
    }
}

TEST_F(FaultyDevice, HeldReadAndWriteGoOnWithTheirData) {
    auto stream = io_.set_mig_state(StopCopy);
    script("hold=read state");
    std::byte piece[16]{};
    std::thread reader([&] { EXPECT_EQ((*stream)->read_some(piece)->bytes, 16); });
    control_->wait_until_held();
    EXPECT_EQ(rig_.env().activity.snapshot().at(0).call, "read state");
    control_->release();
    reader.join();
    ASSERT_TRUE(io_.reset());
    stream = io_.set_mig_state(Resuming);
    script("hold=write state");
    std::thread writer([&] { EXPECT_TRUE((*stream)->write_some(piece)); });
    control_->wait_until_held();
    EXPECT_EQ(rig_.env().activity.snapshot().at(0).call, "write state");
    control_->release();
    writer.join();
}

TEST_F(FaultyDevice, HoldFromTheNthCallOn) {
    script("hold=get info#2");
    EXPECT_TRUE(io_.info());
    std::thread first([&] { EXPECT_TRUE(io_.info()); });
    std::thread second([&] { EXPECT_TRUE(io_.info()); });
    control_->wait_until_held(2);
    control_->release();
    first.join();
    second.join();
    EXPECT_TRUE(io_.info());
}

TEST_F(FaultyDevice, HeldCallMayFailAfterwards) {
    script("hold=reset;fail=reset:EIO");
    std::thread worker([&] { EXPECT_EQ(errno_of(io_.reset()), EIO); });
    control_->wait_until_held();
    control_->release();
    worker.join();
}

// ---- the log of calls

TEST_F(FaultyDevice, LogNamesCallsArcsAndArguments) {
    control_->clear_log();
    auto stream = io_.set_mig_state(StopCopy);
    std::byte piece[100];
    ASSERT_TRUE((*stream)->read_some(piece));
    const DmaLogRange range{0x1000, 0x2000};
    ASSERT_TRUE(io_.dma_logging_start({&range, 1}, 4096));
    using Calls = std::vector<std::string>;
    EXPECT_EQ(calls(),
              (Calls{"set state stop-copy", "arc:running->running-p2p", "arc:running-p2p->stop",
                     "arc:stop->stop-copy", "read state", "start dma log"}));
    EXPECT_EQ(control_->log()[4], (FaultControl::Call{"dev", "read state", "100 bytes"}));
    EXPECT_EQ(control_->log()[5].arguments, "pages of 4096, 0x1000+0x2000");
    EXPECT_EQ(control_->count("arc:*"), 3);
    EXPECT_EQ(control_->count("reset"), 0);
}

// With one control for two devices their calls are in one order.
TEST(FaultControlOfTwoDevices, LogTellsThemApart) {
    auto control = std::make_shared<FaultControl>();
    const auto wrap = [&](std::string name) {
        return [&control, name](std::unique_ptr<VfioDeviceIo> io, util::Env& env) {
            return std::make_unique<FaultyDeviceIo>(std::move(io), control, env, name);
        };
    };
    SoftRig a({}, wrap("a")), b({}, wrap("b"));
    control->clear_log();
    ASSERT_TRUE(a.io().info());
    ASSERT_TRUE(b.io().info());
    ASSERT_EQ(control->log().size(), 2);
    EXPECT_EQ(control->log()[0].device, "a");
    EXPECT_EQ(control->log()[1].device, "b");
}

// ---- the board

TEST_F(FaultyDevice, EveryCallIsOnTheBoardWhileItLasts) {
    const BorrowedFd none[1];
    const DmaLogRange range{0, 0x1000};
    util::Bitmap pages(1);
    std::byte word[4]{};
    const std::vector<std::pair<std::string, std::function<void()>>> all = {
        {"get info", [&] { (void)io_.info().has_value(); }},
        {"get region info", [&] { (void)io_.region_info(0).has_value(); }},
        {"get irq info", [&] { (void)io_.irq_info(2).has_value(); }},
        {"set irqs", [&] { (void)io_.set_irq_eventfds(2, 0, none).has_value(); }},
        {"disable irqs", [&] { (void)io_.disable_irqs(2).has_value(); }},
        {"mask irq", [&] { (void)io_.set_irq_masked(2, 0, true).has_value(); }},
        {"unmask irq", [&] { (void)io_.set_irq_masked(2, 0, false).has_value(); }},
        {"set unmask eventfd",
         [&] { (void)io_.set_irq_unmask_eventfd(2, 0, BorrowedFd()).has_value(); }},
        {"reset", [&] { (void)io_.reset().has_value(); }},
        {"read region 7", [&] { (void)io_.region_read(7, 0, word).has_value(); }},
        {"write region 0", [&] { (void)io_.region_write(0, 0, word).has_value(); }},
        {"map region 0", [&] { (void)io_.region_map(0, 0, 4096).has_value(); }},
        {"get migration caps", [&] { (void)io_.migration_caps().has_value(); }},
        {"get state", [&] { (void)io_.mig_state().has_value(); }},
        {"get data size", [&] { (void)io_.stop_copy_bytes().has_value(); }},
        {"probe dma log", [&] { (void)io_.dma_logging_supported().has_value(); }},
        {"start dma log", [&] { (void)io_.dma_logging_start({&range, 1}, 4096).has_value(); }},
        {"report dma log", [&] { (void)io_.dma_logging_report(range, 4096, pages).has_value(); }},
        {"stop dma log", [&] { (void)io_.dma_logging_stop().has_value(); }},
    };
    for (const auto& [name, call] : all) {
        control_->hold("*");
        std::thread worker(call);
        control_->wait_until_held();
        const auto board = rig_.env().activity.snapshot();
        ASSERT_EQ(board.size(), 1);
        EXPECT_EQ(board[0].call, name);
        control_->release();
        worker.join();
        EXPECT_TRUE(rig_.env().activity.snapshot().empty());
    }
}

}  // namespace
}  // namespace ferry::vfio
