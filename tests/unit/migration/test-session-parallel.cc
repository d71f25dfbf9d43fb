// SPDX-License-Identifier: BSD-2-Clause
// What several devices do at the same time, so that many pause the VM little longer than one: shown
// by holding a call of each until all of them are held at once.
#include "tests/unit/migration/device-session.h"

namespace ferry::test {
namespace {

constexpr size_t kDevices = 4;

class ParallelDevices : public DeviceSessionTest {
 protected:
    // `call`, on the side that `side` chooses, of all devices at one moment.
    void expect_all_at_once(const std::string& call, std::unique_ptr<SoftSide>& side,
                            const hw::TestDeviceConfig& config = small_device(),
                            size_t page_channels = 0) {
        make_pair(std::vector(kDevices, config));
        if (page_channels != 0) {
            use_page_channels(*src, page_channels);
            use_page_channels(*dst, page_channels);
        }
        for (const auto& device : side->devices) device->faults().hold(call);
        begin();
        EXPECT_TRUE(side->wait_until_held(kDevices)) << call;
        for (const auto& device : side->devices) device->faults().release();
        finish();
        expect_moved();
    }
};

TEST_F(ParallelDevices, ArePreparedTogetherToBeLoaded) {
    expect_all_at_once("arc:stop->resuming", dst);
}

// A destination that still prepares its devices does not keep the guest waiting.
TEST_F(ParallelDevices, GuestRunsUntilTheDestinationIsPrepared) {
    make_pair(std::vector(kDevices, small_device()));
    dst->a().faults().hold("arc:stop->resuming");
    begin();
    ASSERT_TRUE(dst->vm.loop.wait_for([&] { return !dst->a().faults().held().empty(); }));
    ASSERT_TRUE(src->vm.loop.wait_for(
        [&] { return src->vm.status() == migration::MigrationStatus::Active; }));
    EXPECT_EQ(to_string(src->vm.state()), "running");
    dst->a().faults().release();
    finish();
    expect_moved();
}

TEST_F(ParallelDevices, AreQuiescedTogether) {
    expect_all_at_once("arc:pre-copy->pre-copy-p2p", src);
}

TEST_F(ParallelDevices, StopTogether) {
    expect_all_at_once("arc:pre-copy-p2p->stop-copy", src);
}

TEST_F(ParallelDevices, TellTogetherWhatTheyWrote) {
    expect_all_at_once("report dma log", src);
}

// All of it goes while the VM stands still.
hw::TestDeviceConfig without_pre_copy() {
    hw::TestDeviceConfig config = small_device();
    config.caps.pre_copy = false;
    return config;
}

TEST_F(ParallelDevices, AreSavedTogether) {
    expect_all_at_once("read state", src, without_pre_copy());
}

TEST_F(ParallelDevices, AreLoadedTogether) {
    expect_all_at_once("write state", dst, without_pre_copy());
}

TEST_F(ParallelDevices, AreSavedTogetherOverOnePageChannel) {
    expect_all_at_once("read state", src, without_pre_copy(), 1);
}

TEST_F(ParallelDevices, AreLoadedTogetherOverOnePageChannel) {
    expect_all_at_once("write state", dst, without_pre_copy(), 1);
}

TEST_F(ParallelDevices, AreLoadedTogetherOverFourPageChannels) {
    expect_all_at_once("write state", dst, without_pre_copy(), 4);
}

TEST_F(ParallelDevices, ValidateTogether) {
    expect_all_at_once("arc:resuming->stop", dst);
}

TEST_F(ParallelDevices, PrepareToStartTogether) {
    expect_all_at_once("arc:stop->running-p2p", dst);
}

TEST_F(ParallelDevices, StartTogether) {
    expect_all_at_once("arc:running-p2p->running", dst);
}

}  // namespace
}  // namespace ferry::test
