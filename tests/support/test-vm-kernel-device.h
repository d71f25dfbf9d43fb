// SPDX-License-Identifier: BSD-2-Clause
// A PCI function of the fake kernel plugged into a TestVm, as ferry-vmm composes it. The faults are
// those of the system calls.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hw/pci/pci.h"
#include "hw/vfio/container-legacy.h"
#include "hw/vfio/pci.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/faulty-kernel.h"
#include "tests/support/test-vm-device.h"

namespace ferry::test {

class TestVmKernelDevice final : public VmDevice {
 public:
    // `slot` 3 becomes "0000:00:03.0" and the id "dev3".
    TestVmKernelDevice(TestVm& vm, unsigned slot);
    ~TestVmKernelDevice() override;

    // What it has to send: bytes in pre-copy and bytes once stopped.
    void set_image(std::vector<std::byte> precopy, std::vector<std::byte> stopcopy);
    // As the guest's driver does: memory and DMA on, MSI-X on, the first vector unmasked.
    void enable_interrupts();

    uint64_t digest() const override;
    vfio::MigState real_state() override { return device_.state; }
    vfio::FaultControl& faults() override { return *faults_; }
    size_t open_descriptors() override { return kernel_.open_fds(); }
    std::vector<std::string> complaints() override { return kernel_.faults; }

 private:
    TestVm& vm_;
    FakeVfioKernel kernel_;
    FakeVfioDevice& device_;
    std::shared_ptr<vfio::FaultControl> faults_;
    FaultyKernel faulty_;
    vfio::VfioKernelHost host_;
    pci::PciBus bus_;
    std::unique_ptr<vfio::VfioPciDevice> plugged_;
};

}  // namespace ferry::test
