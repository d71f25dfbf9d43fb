// SPDX-License-Identifier: BSD-2-Clause
// query-pci's answer: what the guest finds when it walks the bus.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hw/pci/pci.h"
#include "monitor/json.h"
#include "monitor/schema.h"
#include "system/vmm/devices.h"
#include "system/vmm/machine-types.h"

namespace ferry::vmm {

// The one bus that there is.
std::string_view bus_name(MachineType machine);

// What configuration space does not tell.
struct FunctionDetails {
    std::string id;
    std::array<uint64_t, 6> bar_bytes;
};
using DetailsByAddress = std::map<pci::PciAddress, FunctionDetails>;
DetailsByAddress bar_sizes(const std::vector<const DeviceInfo*>& devices);

monitor::Schema pci_schema();  // of one bus

// May wait for drivers: not on the main loop.
monitor::Json pci_json(pci::PciBus& bus, const DetailsByAddress& details);

}  // namespace ferry::vmm
