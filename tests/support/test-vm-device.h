// SPDX-License-Identifier: BSD-2-Clause
// A software VFIO device plugged into a TestVm: the model, the faults, the observer, and the
// device's part in migration, as ferry-vmm composes them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hw/test-device.h"
#include "hw/vfio/container-soft.h"
#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/device-io-observed.h"
#include "hw/vfio/device-io-soft.h"
#include "hw/vfio/vfio-device.h"
#include "tests/support/test-vm.h"

namespace ferry::test {

// A VFIO device in a TestVm, whatever is behind it.
class VmDevice {
 public:
    virtual ~VmDevice() = default;
    // What stands for the content of the device: of its own, or the one it was loaded with.
    virtual uint64_t digest() const = 0;
    // Where the device really is, past all wrappers.
    virtual vfio::MigState real_state() = 0;
    // Of the calls that reach the device.
    virtual vfio::FaultControl& faults() = 0;
    // Open ones that the process's table does not show.
    virtual size_t open_descriptors() { return 0; }
    // Which rules of the driver's interface were broken.
    virtual std::vector<std::string> complaints() { return {}; }
};

class TestVmDevice final : public VmDevice {
 public:
    // `slot` 3 becomes "0000:00:03.0" and the id "dev3".
    TestVmDevice(TestVm& vm, unsigned slot, hw::TestDeviceConfig config = {},
                 vfio::VfioProperties properties = {});
    ~TestVmDevice() override;

    uint64_t digest() const override { return model_->state_digest(); }
    vfio::MigState real_state() override;
    vfio::FaultControl& faults() override { return *faults_; }
    void change_state(uint64_t bytes) { model_->change_state(bytes); }
    // Loop thread: of its state, from the next migration on.
    void set_multifd_transfer(vfio::OnOffAuto value) { migration_->set_multifd_transfer(value); }
    // As the guest would.
    Result<> reset();

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
