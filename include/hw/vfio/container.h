// SPDX-License-Identifier: BSD-2-Clause
// DmaContainer: one DMA address space and the devices in it.
#pragma once

#include <string_view>

#include "system/memory.h"
#include "util/result.h"

namespace ferry::vfio {

// Main loop thread or the thread that realizes devices; one at a time.
class DmaContainer {
 public:
    virtual ~DmaContainer() = default;
    virtual std::string_view name() const = 0;
    // Makes `length` bytes of host memory visible to the devices at `iova`. Page-aligned.
    virtual Result<> dma_map(system::Iova iova, MutBytes host) = 0;
    virtual Result<> dma_unmap(system::Iova iova, uint64_t length) = 0;
};

// Maps all guest RAM (IOVA = GPA); what was mapped is unmapped again when one fails.
Result<> map_guest_memory(DmaContainer& container, const system::GuestMemory& memory);

}  // namespace ferry::vfio
