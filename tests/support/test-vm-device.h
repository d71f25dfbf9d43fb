// SPDX-License-Identifier: BSD-2-Clause
// A software VFIO device plugged into a TestVm: the model, the faults, the observer, and the
// device's part in migration, as ferry-vmm composes them.
#pragma once

#include <memory>
#include <string>

#include "hw/test-device.h"
#include "hw/vfio/container-soft.h"
#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/device-io-observed.h"
#include "hw/vfio/device-io-soft.h"
#include "hw/vfio/vfio-device.h"
#include "tests/support/test-vm.h"

namespace ferry::test {

class TestVmDevice {
 public:
    // `slot` 3 becomes "0000:00:03.0" and the id "dev3".
    TestVmDevice(TestVm& vm, unsigned slot, hw::TestDeviceConfig config = {},
                 vfio::VfioProperties properties = {});
    ~TestVmDevice();

    uint64_t digest() const { return model_->state_digest(); }
    void change_state(uint64_t bytes) { model_->change_state(bytes); }
    // Where the device really is, past all wrappers.
    vfio::MigState real_state();
    // As the guest would.
    Result<> reset();
    vfio::FaultControl& faults() { return *faults_; }

 private:
    TestVm& vm_;
    vfio::SoftContainer dma_;
    std::shared_ptr<vfio::FaultControl> faults_;
    hw::TestDevice* model_ = nullptr;
    vfio::SoftDeviceIo* soft_ = nullptr;
    std::unique_ptr<vfio::VfioDeviceIo> io_;
    std::unique_ptr<util::Worker> worker_;
    std::unique_ptr<vfio::VfioDeviceMigration> migration_;
};

}  // namespace ferry::test
