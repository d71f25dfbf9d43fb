// SPDX-License-Identifier: BSD-2-Clause
// The parts of a device's BARs that the guest reaches without the VMM: mapped once, shown to the
// guest wherever it has put the BAR.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hw/pci/pci.h"
#include "hw/vfio/pci-config.h"
#include "hw/vfio/vfio-device-io.h"
#include "system/device-memory.h"
#include "util/mapped-region.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::vfio {

// What of a BAR may be shown: whole pages that the driver lets be mapped, without those that hold
// the MSI-X table or its pending bits, which are the VMM's. A driver that would let those be
// mapped, too, changes nothing.
std::vector<RegionInfo::Area> directly_usable(const RegionInfo& region, unsigned bar,
                                              const std::optional<MsixLayout>& msix);

// One thread at a time. Everything that is not shown is trapped, and works all the same.
class BarMappings {
 public:
    // Of one device; what a driver could ask for beyond that is trapped.
    static constexpr size_t kMaxPieces = 64;
    using Decoded = std::span<const pci::PciDevice::MemoryBar>;

    // `memory` outlives this object.
    explicit BarMappings(system::DeviceMemory& memory) : memory_(memory) {}

    // Calls the driver. After an Error the rest of the BAR is trapped.
    Result<> add(VfioDeviceIo& io, unsigned bar, const std::optional<MsixLayout>& msix);
    // Takes away what the guest does not decode there any more; with nothing decoded, everything.
    void withdraw(Decoded decoded);
    // Shows the rest. What cannot be shown at an address is not tried there again.
    Result<> show(Decoded decoded);

 private:
    struct Piece {
        unsigned bar;
        uint64_t offset;
        util::MappedRegion host;
        std::optional<uint64_t> tried_at;  // the BAR's address; none: not decoded
        util::Registration shown;          // goes before the mapping
    };
    static std::optional<uint64_t> address_of(const Piece& piece, Decoded decoded);

    system::DeviceMemory& memory_;
    std::vector<Piece> pieces_;
};

}  // namespace ferry::vfio
