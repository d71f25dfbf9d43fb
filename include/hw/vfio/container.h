// SPDX-License-Identifier: BSD-2-Clause
// DmaContainer: one DMA address space and the devices in it.
#pragma once

#include <string_view>

#include "system/memory.h"
#include "util/bitmap.h"
#include "util/result.h"

namespace ferry::vfio {

enum class MapAccess : uint8_t { ReadOnly, ReadWrite };  // of the devices

// Any thread.
class DmaContainer {
 public:
    virtual ~DmaContainer() = default;
    virtual std::string_view name() const = 0;
    // Makes `length` bytes of host memory visible to the devices at `iova`. Page-aligned.
    virtual Result<> dma_map(system::Iova iova, MutBytes host, MapAccess access) = 0;
    virtual Result<> dma_unmap(system::Iova iova, uint64_t length) = 0;
    // The same while writes are tracked: nobody can ask later. ORs a bit for each page of the range
    // that was written since the last query into `written`; all bits when that is unknown. What
    // can't be told does not keep it from being unmapped.
    virtual Result<> dma_unmap_written(system::Iova iova, uint64_t length,
                                       util::Bitmap& written) = 0;
};

// Maps all guest RAM (IOVA = GPA); what was mapped is unmapped again when one fails.
Result<> map_guest_memory(DmaContainer& container, const system::GuestMemory& memory);

}  // namespace ferry::vfio
