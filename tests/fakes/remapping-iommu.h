// SPDX-License-Identifier: BSD-2-Clause
// A virtual IOMMU of the simplest kind, as a guest sees it: a table in guest memory with an entry
// of 8 bytes for each page of device addresses, and a command that makes changes of it take effect.
#pragma once

#include <cstdint>
#include <map>

#include "hw/vfio/dma-space.h"
#include "system/memory.h"

namespace ferry::test {

// One thread.
class RemappingIommu {
 public:
    // The table is at `table`, about the device addresses from `base` on.
    RemappingIommu(system::GuestMemory& memory, vfio::DmaSpace& space, system::Gpa table,
                   system::Iova base, uint64_t pages)
        : memory_(memory), space_(space), table_(table), base_(base), pages_(pages) {}

    // The guest writes entries, and then invalidates.
    static constexpr uint64_t kReadable = 1, kWritable = 2;
    void write_entry(uint64_t page, system::Gpa gpa, uint64_t access);
    void clear_entry(uint64_t page) { write_entry(page, 0, 0); }
    // Entries [first, first + count) count from now on; the first error, all of them done.
    Result<> invalidate(uint64_t first, uint64_t count);
    Result<> invalidate_all() { return invalidate(0, pages_); }

    system::Iova iova_of(uint64_t page) const { return base_ + page * system::kPageSize; }

 private:
    uint64_t entry(uint64_t page) const;

    system::GuestMemory& memory_;
    vfio::DmaSpace& space_;
    const system::Gpa table_;
    const system::Iova base_;
    const uint64_t pages_;
    std::map<uint64_t, uint64_t> effective_;  // entries as they were when last invalidated
};

}  // namespace ferry::test
