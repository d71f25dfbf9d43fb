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
    void expect_all_at_once(const std::string& call, std::unique_ptr<SoftSide>& side) {
        make_pair(std::vector(kDevices, small_device()));
        for (const auto& device : side->devices) device->faults().hold(call);
        begin();
        EXPECT_TRUE(side->wait_until_held(kDevices)) << call;
        for (const auto& device : side->devices) device->faults().release();
        finish();
        expect_moved();
    }
};

TEST_F(ParallelDevices, AreQuiescedTogether) {
    expect_all_at_once("arc:pre-copy->pre-copy-p2p", src);
}

TEST_F(ParallelDevices, StopTogether) {
    expect_all_at_once("arc:pre-copy-p2p->stop-copy", src);
}

TEST_F(ParallelDevices, TellTogetherWhatTheyWrote) {
    expect_all_at_once("report dma log", src);
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
