// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "hw/test-device.h"
#include "tests/support/errno-of.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"
#include "util/event-fd.h"

namespace ferry::hw {
namespace {

using namespace test_device_reg;
using namespace std::chrono_literals;
using test::read_image;
using test::small;
using test::SoftRig;
using vfio::MigState;
using namespace test::mig_states;
using system::kPageSize;
using test::errno_of;

constexpr auto kIova = SoftRig::kMemoryIova;

// ---- properties

Result<TestDeviceConfig> parse(std::string name, std::string value) {
    const std::pair<std::string, std::string> property[] = {{std::move(name), std::move(value)}};
    return TestDeviceConfig::parse(property);
}

TEST(TestDeviceConfig, WrongValueIsRefusedByTheNameOfItsProperty) {
    const std::pair<std::string, std::string> wrong[] = {
        {"x-state-size", "64X"},
        {"x-state-size", "0"},
        {"x-state-size", "4097"},
        {"x-state-size", "65G"},
        {"x-state-size", "99999999999999999999"},
        {"x-state-size", "17179869184G"},
        {"x-dirty-rate", "fast"},
        {"x-dirty-rate", "17G"},
        {"x-dma-rate", "-1"},
        {"x-pre-copy", "yes"},
        {"x-p2p", ""},
        {"x-arc-latency", "20"},
        {"x-arc-latency", "stop:20ms"},
        {"x-arc-latency", "stop->nowhere:20ms"},
        {"x-arc-latency", "1ms;"},
        {"x-dirty-tracking", "maybe"},
        {"x-vectors", "0"},
        {"x-vectors", "65"},
        {"x-vendor-data", "thirteen byte"},
        {"x-no-such-thing", "1"},
    };
    for (const auto& [name, value] : wrong) {
        const auto config = parse(name, value);
        ASSERT_FALSE(config) << name << "=" << value;
        EXPECT_NE(config.error().message().find(name), std::string::npos);
    }
}

TEST(TestDeviceConfig, ValuesArriveInTheirUnits) {
    EXPECT_EQ(parse("x-state-size", "64M")->state_bytes, 64 << 20);
    EXPECT_EQ(parse("x-state-file", "/dev/shm/s")->state_file, "/dev/shm/s");
    EXPECT_EQ(parse("x-dirty-rate", "100M")->dirty_bytes_per_s, 100 << 20);
    EXPECT_EQ(parse("x-dma-rate", "1000")->dma_pages_per_s, 1000);
    EXPECT_FALSE(parse("x-pre-copy", "off")->caps.pre_copy);
    EXPECT_FALSE(parse("x-p2p", "off")->caps.p2p);
    EXPECT_FALSE(parse("x-migratable", "off")->caps.supported());
    EXPECT_EQ(parse("x-dirty-tracking", "fail-report")->dirty_tracking,
              TestDeviceConfig::DirtyTracking::FailReport);
    EXPECT_EQ(parse("x-enomsg", "off")->nothing_for_now, TestDeviceConfig::NothingForNow::Zero);
    EXPECT_EQ(parse("x-vectors", "16")->vectors, 16);
    EXPECT_EQ(parse("x-vendor-data", "abc")->vendor_data, "abc");
    EXPECT_EQ(parse("x-pcie", "on")->bus, TestDeviceConfig::Bus::Pcie);
    EXPECT_EQ(parse("x-fault", "fail=reset:EIO")->faults, "fail=reset:EIO");
}

TEST(TestDeviceConfig, LatencyIsForAllArcsOrForNamedOnes) {
    const auto config = parse("x-arc-latency", "1ms;stop->stop-copy:20us;running->pre-copy:3s");
    ASSERT_TRUE(config);
    EXPECT_EQ(config->arc_latency, 1ms);
    ASSERT_EQ(config->arc_latencies.size(), 2);
    EXPECT_EQ(config->arc_latencies[0].from, Stop);
    EXPECT_EQ(config->arc_latencies[0].to, StopCopy);
    EXPECT_EQ(config->arc_latencies[0].latency, 20us);
    EXPECT_EQ(config->arc_latencies[1].latency, 3s);
}

TEST(TestDeviceConfig, EveryPropertyHasHelp) {
    EXPECT_GE(TestDeviceConfig::property_help().size(), 14);
    for (const auto& [name, value, help] : TestDeviceConfig::property_help()) {
        EXPECT_TRUE(name.starts_with("x-"));
        EXPECT_FALSE(value.empty() || help.empty()) << name;
    }
}

// ---- the face of a PCI function

std::vector<std::byte> config_space(SoftRig& rig, uint64_t bytes) {
    std::vector<std::byte> space(bytes);
    EXPECT_TRUE(rig.io().region_read(vfio::pci_region::kConfig, 0, space));
    return space;
}

TEST(TestDevicePci, CapabilityListHasMsixAndVendorData) {
    TestDeviceConfig config = small();
    config.vectors = 5;
    config.vendor_data = "match-me";
    SoftRig rig(config);
    const auto space = config_space(rig, 256);
    const auto msix = static_cast<size_t>(space[0x34]);
    EXPECT_EQ(space[msix], std::byte{0x11});
    EXPECT_EQ(util::load_le16(space.data() + msix + 2), 4);
    const auto vendor = static_cast<size_t>(space[msix + 1]);
    EXPECT_EQ(space[vendor], std::byte{0x09});
    EXPECT_EQ(std::memcmp(space.data() + vendor + 4, "match-me", 9), 0);
    EXPECT_EQ(space[vendor + 1], std::byte{0});
    EXPECT_EQ(rig.io().irq_info(vfio::pci_irq::kMsix)->count, 5);
}

TEST(TestDevicePci, ExpressFunctionHasItsCapabilityAndAllOfConfigSpace) {
    TestDeviceConfig config = small();
    config.bus = TestDeviceConfig::Bus::Pcie;
    SoftRig rig(config);
    const auto space = config_space(rig, 4096);
    const auto vendor = static_cast<size_t>(space[static_cast<size_t>(space[0x34]) + 1]);
    EXPECT_EQ(space[static_cast<size_t>(space[vendor + 1])], std::byte{0x10});
    EXPECT_EQ(rig.io().region_info(vfio::pci_region::kConfig)->size, 4096);
}

TEST(TestDevicePci, BarsTellTheirSize) {
    SoftRig rig(small());
    const std::vector<std::byte> ones(12, std::byte{0xff});
    ASSERT_TRUE(rig.io().region_write(vfio::pci_region::kConfig, 0x10, ones));
    const auto space = config_space(rig, 256);
    EXPECT_EQ(util::load_le32(space.data() + 0x10), 0 - 0x4000U);
    EXPECT_EQ(util::load_le32(space.data() + 0x14), 0);
    EXPECT_EQ(util::load_le32(space.data() + 0x18), 0 - 0x1000U);
}

TEST(TestDevicePci, BarMemoryKeepsWhatIsWritten) {
    SoftRig rig(small());
    std::vector<std::byte> in(64, std::byte{0xa5}), out(64);
    for (const auto& [bar, offset] : {std::pair<uint32_t, uint64_t>{0, kRamOffset + 3}, {2, 7}}) {
        ASSERT_TRUE(rig.io().region_write(bar, offset, in));
        ASSERT_TRUE(rig.io().region_read(bar, offset, out));
        EXPECT_EQ(in, out);
    }
}

TEST(TestDevicePci, MisalignedRegisterAccessIsRefused) {
    SoftRig rig(small());
    std::vector<std::byte> bytes(4);
    EXPECT_EQ(errno_of(rig.io().region_read(0, 2, bytes)), EINVAL);
    EXPECT_EQ(errno_of(rig.io().region_write(0, 0, ConstBytes(bytes).first(2))), EINVAL);
    bytes.resize(8);
    EXPECT_EQ(errno_of(rig.io().region_read(0, kRamOffset - 4, bytes)), EINVAL);
}

// ---- registers

TEST(TestDeviceRegisters, StateWindowReadsWritesAndAdvances) {
    SoftRig rig(small());
    auto driver = rig.driver();
    driver.write_state(0x100, 0x11111111);
    driver.set(kStateData, 0x22222222);
    EXPECT_EQ(driver.read_state(0x100), 0x11111111);
    EXPECT_EQ(driver.get(kStateData), 0x22222222);
    EXPECT_EQ(driver.get(kStateOffset), 0x108);
}

TEST(TestDeviceRegisters, StateWindowBeyondTheStateReadsOnesAndIgnoresWrites) {
    SoftRig rig(small());
    auto driver = rig.driver();
    const uint64_t before = driver.digest();
    driver.write_state(0x30000, 1);
    driver.write_state(2, 1);  // misaligned
    EXPECT_EQ(driver.read_state(0xfffffffc), ~0U);
    EXPECT_EQ(driver.digest(), before);
}

TEST(TestDeviceRegisters, FillAndDigestAreWhatTheManualSays) {
    SoftRig rig(small(kPageSize));
    auto driver = rig.driver();
    driver.fill(3);
    uint64_t x = 3 * uint64_t{0x9e3779b97f4a7c15};
    uint64_t digest = 0xcbf29ce484222325;
    for (uint64_t i = 0; i < kPageSize / 8; ++i, x += 0xbf58476d1ce4e5b9) {
        digest = (digest ^ x ^ (x >> 29)) * 0x100000001b3;
    }
    EXPECT_EQ(driver.digest(), digest);
    EXPECT_EQ(rig.device().state_digest(), digest);
    driver.fill(0);
    EXPECT_EQ(driver.read_state(0), 0);
}

TEST(TestDeviceRegisters, InterruptIsCountedAndOutOfRangeIgnored) {
    SoftRig rig(small());
    auto driver = rig.driver();
    driver.raise(0);
    driver.raise(4);
    driver.raise(~0U);
    EXPECT_EQ(driver.get(kIrqCount), 1);
}

TEST(TestDeviceRegisters, ResetClearsStateRegistersAndConfigSpace) {
    SoftRig rig(small());
    auto driver = rig.driver();
    const uint64_t empty = driver.digest();
    driver.fill(1);
    driver.set(kScratch, 5);
    ASSERT_TRUE(rig.io().reset());
    EXPECT_EQ(driver.digest(), empty);
    EXPECT_EQ(driver.get(kScratch), 0);
    EXPECT_EQ(config_space(rig, 256)[4], std::byte{0});
}

// ---- DMA

TEST(TestDeviceDma, FailingCommandSaysWhy) {
    SoftRig rig(small());
    auto driver = rig.driver();
    EXPECT_EQ(driver.dma(kDmaFill, kIova, 0), EINVAL);
    EXPECT_EQ(driver.dma(kDmaFill, kIova, 6), EINVAL);
    EXPECT_EQ(driver.dma(kDmaFill, kIova, (1 << 20) + 4), EINVAL);
    EXPECT_EQ(driver.dma(9, kIova, 4), EINVAL);
    EXPECT_EQ(driver.dma(kDmaFill, 0, 4), EFAULT);
    EXPECT_EQ(driver.dma(kDmaFill, ~uint64_t{0} - 1, 4), EFAULT);
    driver.set(kStateOffset, 0x2fffe);
    EXPECT_EQ(driver.dma(kDmaFromState, kIova, 4), EINVAL);
    EXPECT_EQ(driver.get(kDmaCount), 0);
}

TEST(TestDeviceDma, NeedsBusMastering) {
    SoftRig rig(small());
    ASSERT_TRUE(rig.io().reset());  // turns it off
    EXPECT_EQ(rig.driver().dma(kDmaFill, kIova, 4), EPERM);
}

TEST(TestDeviceDma, IsRefusedInEveryStateButRunningAndPreCopy) {
    SoftRig rig(small());
    auto driver = rig.driver();
    for (const MigState state : {RunningP2P, PreCopyP2P, Stop, StopCopy, Resuming}) {
        const auto stream = rig.io().set_mig_state(state);
        EXPECT_EQ(driver.dma(kDmaFill, kIova, 4), EBUSY) << to_string(state);
        ASSERT_TRUE(rig.io().reset());
        driver.enable_bus_master();
    }
    const auto stream = rig.io().set_mig_state(PreCopy);
    EXPECT_EQ(driver.dma(kDmaFill, kIova, 4), 0);
}

TEST(TestDeviceDma, FillWritesThePatternAndRaisesTheVector) {
    SoftRig rig(small());
    auto driver = rig.driver();
    const auto eventfd = util::EventFd::create();
    const BorrowedFd fds[] = {eventfd->fd()};
    ASSERT_TRUE(rig.io().set_irq_eventfds(vfio::pci_irq::kMsix, 3, fds));
    EXPECT_EQ(driver.dma(kDmaFill | (3 + 1) << 8, kIova + 8, 16, 0xabcd1234), 0);
    EXPECT_EQ(util::load_le32(rig.memory().data() + 8), 0xabcd1234);
    EXPECT_EQ(util::load_le32(rig.memory().data() + 20), 0xabcd1234);
    EXPECT_EQ(util::load_le32(rig.memory().data() + 24), 0);
    EXPECT_EQ(eventfd->consume(), 1);
}

TEST(TestDeviceDma, CopiesBetweenStateAndMemory) {
    SoftRig rig(small());
    auto driver = rig.driver();
    driver.write_state(0x40, 0x600df00d);
    driver.set(kStateOffset, 0x40);
    EXPECT_EQ(driver.dma(kDmaFromState, kIova, 4), 0);
    EXPECT_EQ(util::load_le32(rig.memory().data()), 0x600df00d);
    driver.set(kStateOffset, 0x80);
    EXPECT_EQ(driver.dma(kDmaToState, kIova, 4), 0);
    EXPECT_EQ(driver.read_state(0x80), 0x600df00d);
}

class AutoDma : public testing::Test {
 protected:
    static TestDeviceConfig config() {
        TestDeviceConfig config = small();
        config.dma_pages_per_s = 1000;
        return config;
    }
    void enable(uint64_t pages) {
        driver_.set64(kAutoIova, kIova);
        driver_.set64(kAutoBytes, pages * kPageSize);
        driver_.set(kAutoControl, 1);
    }
    uint64_t marked_pages() {
        util::Bitmap pages(SoftRig::kMemoryBytes / kPageSize);
        EXPECT_TRUE(rig_.io().dma_logging_report(memory_, kPageSize, pages));
        return pages.count();
    }

    vfio::DmaLogRange memory_{kIova, SoftRig::kMemoryBytes};
    SoftRig rig_{config()};
    test::TestDeviceDriver driver_ = rig_.driver();
};

TEST_F(AutoDma, WritesItsPagesPerSecondAndLogsThem) {
    enable(64);
    ASSERT_TRUE(rig_.io().dma_logging_start({&memory_, 1}, kPageSize));
    rig_.clock().advance(20ms);
    EXPECT_EQ(marked_pages(), 20);  // whoever asks sees all that is due
    EXPECT_EQ(driver_.get64(kAutoPages), 20);
    EXPECT_EQ(util::load_le64(rig_.memory().data() + 19 * kPageSize), 20);
    EXPECT_EQ(marked_pages(), 0);
}

TEST_F(AutoDma, WritesOnCommand) {
    enable(4);
    driver_.set(kAutoNow, 3);
    EXPECT_EQ(driver_.get64(kAutoPages), 3);
}

TEST_F(AutoDma, StandsStillWhileDmaIsNotAllowed) {
    enable(64);
    ASSERT_TRUE(rig_.io().set_mig_state(RunningP2P));
    ASSERT_TRUE(rig_.io().dma_logging_start({&memory_, 1}, kPageSize));
    rig_.clock().advance(1s);
    EXPECT_EQ(marked_pages(), 0);
    ASSERT_TRUE(rig_.io().set_mig_state(Running));
    rig_.clock().advance(2ms);
    EXPECT_EQ(marked_pages(), 2);
}

TEST_F(AutoDma, WhatWasDueBeforeAStopIsInTheLogAfterIt) {
    enable(64);
    ASSERT_TRUE(rig_.io().dma_logging_start({&memory_, 1}, kPageSize));
    rig_.clock().advance(5ms);
    ASSERT_TRUE(rig_.io().set_mig_state(Stop));
    EXPECT_EQ(marked_pages(), 5);
}

TEST_F(AutoDma, ToUnmappedMemoryTurnsItselfOff) {
    enable(SoftRig::kMemoryBytes / kPageSize + 1);
    driver_.set(kAutoNow, static_cast<uint32_t>(SoftRig::kMemoryBytes / kPageSize + 1));
    EXPECT_EQ(driver_.get(kAutoStatus), EFAULT);
    EXPECT_EQ(driver_.get(kAutoControl), 0);
}

TEST_F(AutoDma, OfNoWholePagesIsRefused) {
    driver_.set64(kAutoIova, kIova);
    driver_.set64(kAutoBytes, 100);
    driver_.set(kAutoControl, 1);
    driver_.set(kAutoNow, 1);
    EXPECT_EQ(driver_.get(kAutoStatus), EINVAL);
}

TEST(TestDeviceDmaLog, FailsItsReportsWhenToldTo) {
    TestDeviceConfig config = small();
    config.dirty_tracking = TestDeviceConfig::DirtyTracking::FailReport;
    SoftRig rig(config);
    const vfio::DmaLogRange range{kIova, kPageSize};
    util::Bitmap pages(1);
    ASSERT_TRUE(rig.io().dma_logging_start({&range, 1}, kPageSize));
    EXPECT_EQ(errno_of(rig.io().dma_logging_report(range, kPageSize, pages)), EIO);
}

// ---- changes by itself

TestDeviceConfig changing(uint64_t bytes_per_s) {
    TestDeviceConfig config = small();
    config.dirty_bytes_per_s = bytes_per_s;
    return config;
}

TEST(TestDeviceChanges, FollowTheClockInTheRunningStates) {
    for (const MigState state : {Running, RunningP2P, PreCopy, PreCopyP2P}) {
        SoftRig rig(changing(8000));
        const auto stream = rig.io().set_mig_state(state);
        const uint64_t before = rig.state_digest();
        rig.clock().advance(1s);
        EXPECT_EQ(rig.driver().get64(kChanged), 8000) << to_string(state);
        EXPECT_NE(rig.state_digest(), before);
    }
}

TEST(TestDeviceChanges, DoNotHappenInTheStoppedStates) {
    for (const MigState state : {Stop, StopCopy, Resuming}) {
        SoftRig rig(changing(8000));
        const auto stream = rig.io().set_mig_state(state);
        rig.clock().advance(1s);
        rig.device().change_state(100);
        EXPECT_EQ(rig.driver().get64(kChanged), 0) << to_string(state);
    }
}

TEST(TestDeviceChanges, GoOnFromWhereTheyWereAfterAStop) {
    SoftRig rig(changing(8000));
    rig.clock().advance(1s);
    ASSERT_TRUE(rig.io().set_mig_state(Stop));
    rig.clock().advance(100s);
    ASSERT_TRUE(rig.io().set_mig_state(Running));
    rig.clock().advance(1s);
    EXPECT_EQ(rig.driver().get64(kChanged), 16000);
}

TEST(TestDeviceChanges, CanBeOrdered) {
    SoftRig rig(small());
    rig.device().change_state(100);
    EXPECT_EQ(rig.driver().get64(kChanged), 104);  // whole words
    rig.driver().set(kChangeNow, 8);
    EXPECT_EQ(rig.driver().get64(kChanged), 112);
}

TEST(TestDeviceChanges, BeyondOneRoundAreOneRound) {
    SoftRig rig(changing(1 << 30));
    rig.clock().advance(3600s);
    EXPECT_LE(rig.driver().get64(kChanged), 0x30000);
}

TEST(TestDeviceChanges, ShowAsDirtyBytesWithTheRate) {
    SoftRig rig(changing(128 << 10));
    auto stream = rig.io().set_mig_state(PreCopy);
    ASSERT_TRUE(stream);
    read_image(**stream);
    EXPECT_EQ((*stream)->precopy_info()->dirty_bytes, 0);
    rig.clock().advance(1s);
    const auto dirty = (*stream)->precopy_info()->dirty_bytes;
    EXPECT_GE(dirty, 128 << 10);
    EXPECT_LE(dirty, 256 << 10);
}

// ---- latency

TEST(TestDeviceLatency, ArcTakesItsTimeByTheClock) {
    TestDeviceConfig config = small();
    config.arc_latencies = {{Running, PreCopy, 5s}};
    SoftRig rig(config);
    std::atomic<bool> done = false;
    const auto begin = rig.clock().now();
    util::Nanoseconds end{};
    std::thread worker([&] {
        EXPECT_TRUE(rig.io().set_mig_state(PreCopy));
        end = rig.clock().now();
        done = true;
    });
    while (!done) {
        rig.clock().advance(1ms);
        std::this_thread::yield();
    }
    worker.join();
    EXPECT_GE(end - begin, 5s);
}

TEST(TestDeviceLatency, OtherArcsTakeTheCommonTime) {
    TestDeviceConfig config = small();
    config.arc_latency = 3600s;
    config.arc_latencies = {{Running, RunningP2P, 0s}, {RunningP2P, Running, 0s}};
    SoftRig rig(config);
    EXPECT_TRUE(rig.io().set_mig_state(RunningP2P));
    EXPECT_TRUE(rig.io().set_mig_state(Running));
    rig.device().stop_waiting();
    EXPECT_TRUE(rig.io().set_mig_state(PreCopy));
}

TEST(TestDeviceLatency, ArcUnderWayEndsWhenWaitingIsStopped) {
    TestDeviceConfig config = small();
    config.arc_latency = 3600s;
    SoftRig rig(config);
    std::thread worker([&] { EXPECT_TRUE(rig.io().set_mig_state(Stop)); });
    rig.device().stop_waiting();
    worker.join();
    EXPECT_EQ(*rig.io().mig_state(), Stop);
}

TEST(TestDeviceState, LivesInItsFileForOthersToSee) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("ferry-test-device-" + std::to_string(::getpid()));
    TestDeviceConfig config = small(kPageSize);
    config.state_file = path;
    SoftRig rig(config);
    rig.driver().write_state(8, 0x64636261);
    std::ifstream file(path, std::ios::binary);
    std::string content((std::istreambuf_iterator<char>(file)), {});
    std::filesystem::remove(path);
    ASSERT_EQ(content.size(), kPageSize);
    EXPECT_EQ(content.substr(8, 4), "abcd");
}

TEST(TestDeviceState, FileThatCannotBeMadeIsAnError) {
    test::TestEnv env;
    TestDeviceConfig config = small(kPageSize);
    config.state_file = "/no/such/directory/state";
    const auto device = TestDevice::create(config, env.env, "dev0");
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().errnum(), ENOENT);
    EXPECT_NE(device.error().message().find("dev0"), std::string::npos);
}

}  // namespace
}  // namespace ferry::hw
