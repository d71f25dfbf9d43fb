// SPDX-License-Identifier: BSD-2-Clause
// A VFIO device as a function on the VM's PCI bus: configuration space, BARs, interrupts, and its
// migration. See docs/devel/pci.rst.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "hw/pci/pci.h"
#include "hw/vfio/vfio-device-io.h"
#include "hw/vfio/vfio-device.h"
#include "system/runstate.h"
#include "util/result.h"

namespace ferry::vfio {

// Where the machine takes the function's interrupts. Any thread, one call per interrupt; called
// without locks, must not block.
struct MsiSink {
    // A message: a write to guest memory, or to where the interrupt controllers listen.
    std::function<void(uint64_t address, uint32_t data)> message;
    // The level of pin 1 (INTA) to 4. May be null: then the function shows no pin.
    enum class Level : uint8_t { Low, High };
    std::function<void(unsigned pin, Level level)> pin;
};

// Main loop thread, unless a method says otherwise.
class VfioPciDevice {
 public:
    // Reads the device, makes it migratable, plugs it. Calls the driver: before the VM runs, or
    // when the caller can wait. `vm`, `bus` and what `sink` refers to outlive the device; `io`
    // belongs to it.
    static Result<std::unique_ptr<VfioPciDevice>> realize(
        VfioVm vm, pci::PciBus& bus, pci::PciAddress address, VfioIdentity identity,
        VfioProperties properties, std::unique_ptr<VfioDeviceIo> io, MsiSink sink);
    // Unplugs and closes. Waits for guest accesses, for the device's thread and for the driver.
    virtual ~VfioPciDevice() = default;
    // The same without waiting; `done` on the loop thread.
    static void unrealize(std::unique_ptr<VfioPciDevice> device, system::Done done);

    // What a reset of the machine does to the device, on the device's own thread, where `done` is
    // called as well. If the driver fails, the guest sees a reset device all the same, switched
    // off.
    virtual void reset(system::Done done) = 0;

    virtual const VfioIdentity& identity() const = 0;
    virtual VfioDeviceIo& io() = 0;  // any thread
    virtual pci::PciDevice& function() = 0;
};

}  // namespace ferry::vfio
