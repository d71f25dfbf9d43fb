// SPDX-License-Identifier: BSD-2-Clause
// A VFIO device as a function on the VM's PCI bus: configuration space, BARs, interrupts, and its
// migration. See docs/devel/pci.rst.
#pragma once

#include <array>
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
    // Which input of the interrupt controllers that pin leads to. Null if `pin` is.
    std::function<unsigned(unsigned pin)> input;
};

// Main loop thread, unless a method says otherwise.
class VfioPciDevice {
 public:
    // `vm`, `bus` and what `sink` refers to outlive the device; what `open` returns belongs to it.
    using Open = std::move_only_function<Result<std::unique_ptr<VfioDeviceIo>>()>;
    struct Request {
        VfioVm vm;
        pci::PciBus& bus;
        pci::PciAddress address;
        VfioIdentity identity;
        VfioProperties properties;
        MsiSink sink;
        Open open;
    };
    // Opens the device, reads it, makes it migratable, plugs it. Calls the driver: before the VM
    // runs, or when the caller can wait.
    static Result<std::unique_ptr<VfioPciDevice>> realize(Request request);
    static Result<std::unique_ptr<VfioPciDevice>> realize(
        VfioVm vm, pci::PciBus& bus, pci::PciAddress address, VfioIdentity identity,
        VfioProperties properties, std::unique_ptr<VfioDeviceIo> io, MsiSink sink);
    // The same without waiting: the driver is called on the device's own thread. Then, on the loop
    // thread, `admit` says when the device may join the VM by calling what it gets, or refuses.
    // `done` on the loop thread; a device that is not wanted has been closed by then.
    using Join = std::move_only_function<void(Result<> admitted)>;
    using Admit = std::move_only_function<void(Join join)>;
    using Realized = std::move_only_function<void(Result<std::unique_ptr<VfioPciDevice>>)>;
    static void realize_async(Request request, Admit admit, Realized done);
    // Unplugs and closes. Waits for guest accesses, for the device's thread and for the driver.
    virtual ~VfioPciDevice() = default;
    // The same without waiting; `done` on the loop thread.
    static void unrealize(std::unique_ptr<VfioPciDevice> device, system::Done done);

    // What a reset of the machine does to the device, on the device's own thread, where `done` is
    // called as well. If the driver fails, the guest sees a reset device all the same, switched
    // off.
    virtual void reset(system::Done done) = 0;

    // x-migration-multifd-transfer, from the next migration on. Loop thread.
    virtual void set_multifd_transfer(OnOffAuto value) = 0;

    virtual const VfioIdentity& identity() const = 0;
    virtual VfioDeviceIo& io() = 0;  // any thread
    virtual pci::PciDevice& function() = 0;
    // Sizes of its BARs; 0: there is no such BAR. Does not call the driver.
    virtual std::array<uint64_t, 6> bar_bytes() const = 0;
};

}  // namespace ferry::vfio
