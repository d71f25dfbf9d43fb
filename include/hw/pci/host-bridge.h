// SPDX-License-Identifier: BSD-2-Clause
// The function 00:00.0 by which a guest recognises that there is a PCI bus.
#pragma once

#include <memory>

#include "hw/pci/pci.h"

namespace ferry::pci {

// Registers only; no BARs.
std::shared_ptr<PciDevice> create_host_bridge(uint16_t vendor_id, uint16_t device_id);

}  // namespace ferry::pci
