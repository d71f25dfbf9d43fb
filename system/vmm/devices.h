// SPDX-License-Identifier: BSD-2-Clause
// The devices of a VM (-device): from properties to a function on the PCI bus that migrates, and
// away again.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/container-legacy.h"
#include "hw/vfio/container-soft.h"
#include "hw/vfio/kernel.h"
#include "hw/vfio/pci.h"
#include "hw/vfio/vfio-device.h"
#include "system/runstate.h"
#include "system/vmm/board.h"
#include "system/vmm/iommufds.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// Of one type, or of all of them ("help").
Result<std::string> device_help(std::string_view driver);
Result<> check_device_type(std::string_view driver);

// What there is to know of a device that exists.
struct DeviceInfo {
    std::string driver;
    std::string id;  // may be empty
    std::string qom_path;
    pci::PciAddress address;
    vfio::VfioProperties properties;
    std::vector<SubOptions::Pair> given;                       // as written
    std::array<uint64_t, 6> bar_bytes = {};                    // 0: there is no such BAR
    enum class Plugged : bool { AtStart, Later } plugged = Plugged::AtStart;
};

std::string_view to_string(vfio::OnOffAuto value);
Result<vfio::OnOffAuto> on_off_auto_from_text(std::string_view text);

// Main loop thread.
class Devices {
 public:
    // All outlive the devices.
    Devices(vfio::VfioVm vm, Board& board, MachineType machine);
    ~Devices();
    Devices(const Devices&) = delete;
    Devices& operator=(const Devices&) = delete;

    // Calls drivers: before the loop runs. The new device is the last of all().
    Result<> create(const DeviceOptions& options);
    // The same while the VM may run. Drivers are called on the device's own thread; `admit` then
    // says when, and whether, the device joins the VM. `done` on the loop thread.
    void create_later(const DeviceOptions& options, vfio::VfioPciDevice::Admit admit,
                      system::Done done);
    std::vector<const DeviceInfo*> all() const;
    // x-migration-multifd-transfer of the device at this path of the object tree.
    Result<> set_multifd_transfer(std::string_view qom_path, vfio::OnOffAuto value);
    // All of them, at once; the drivers are called on the devices' own threads.
    void reset(system::Done done);
    // InvalidArgument when there is no such device. Its destruction waits for its thread, so it
    // happens elsewhere; `done` on the loop thread.
    void remove(std::string_view id, system::Done done);

    // A device is on its way into the VM or out of it: this object must stay.
    bool busy() const { return removing_ > 0 || !arriving_.empty(); }

    Iommufds& iommufds() { return iommufds_; }

    // Adds to the faults of a device; "release" lets go what a script holds up.
    Result<> set_faults(std::string_view id, std::string_view script);

 private:
    struct Device;
    struct Plan;
    using Open = vfio::VfioPciDevice::Open;
    Device* find(std::string_view id) const;
    Device* find_arriving(std::string_view id) const;
    // What can be said without calling a driver.
    Result<Plan> plan(const DeviceOptions& options);
    Result<pci::PciAddress> free_address() const;
    Result<Open> plan_kernel(SubOptions& properties, std::shared_ptr<UniqueFd> handed);
    Result<Open> plan_node(SubOptions& properties, const std::string& iommufd,
                           std::shared_ptr<UniqueFd> handed);
    Result<Open> plan_soft(Device& device, SubOptions& properties,
                           const vfio::VfioIdentity& identity);
    void arrived(Device& device, const std::string& context,
                 Result<std::unique_ptr<vfio::VfioPciDevice>> realized, system::Done done);

    // The wires of a function's pins to the machine's interrupt lines.
    std::function<void(unsigned, vfio::MsiSink::Level)> wire_pins(const std::string& qom_path,
                                                                  pci::PciAddress address);

    vfio::VfioVm vm_;
    Board& board_;
    const MachineType machine_;
    vfio::SyscallKernel kernel_;
    vfio::VfioKernelHost kernel_host_;
    Iommufds iommufds_;
    vfio::SoftContainer soft_container_;
    bool soft_mapped_ = false;  // guest memory, into soft_container_
    size_t removing_ = 0;
    std::vector<std::unique_ptr<Device>> devices_;
    std::vector<std::unique_ptr<Device>> arriving_;  // not of the VM yet; they hold id and address
    unsigned anonymous_ = 0;                         // devices without id so far
};

}  // namespace ferry::vmm
