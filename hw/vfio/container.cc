// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/container.h"

#include <vector>

#include "util/try.h"

namespace ferry::vfio {

Result<> map_guest_memory(DmaContainer& container, const system::GuestMemory& memory) {
    const std::vector<system::RamMapping>& mappings = memory.mappings();
    for (size_t i = 0; i < mappings.size(); ++i) {
        const system::RamMapping& mapping = mappings[i];
        auto mapped = container.dma_map(
            mapping.gpa, mapping.block->host().subspan(mapping.offset, mapping.length),
            MapAccess::ReadWrite);
        if (mapped) continue;
        Error error = std::move(mapped).error().context(
            fmt::format("{}: mapping RAM block '{}'", container.name(), mapping.block->name()));
        for (size_t undo = i; undo-- > 0;) {
            auto unmapped = container.dma_unmap(mappings[undo].gpa, mappings[undo].length);
            if (!unmapped) error.attach_in_place(std::move(unmapped).error());
        }
        return error;
    }
    return {};
}

}  // namespace ferry::vfio
