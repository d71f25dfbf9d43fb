// SPDX-License-Identifier: BSD-2-Clause
// The type1 container of FakeVfioKernel: mappings, and the pages in them that devices wrote. Called
// under the kernel's lock; scripted by the test before and between calls.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/fakes/fake-vfio-device.h"

namespace ferry::test {

class FakeType1 {
 public:
    explicit FakeType1(std::vector<std::string>& log) : log_(log) {}

    std::optional<uint64_t> map_limit_bytes;  // then ENOMEM
    bool migration_capability = true;
    uint64_t dirty_page_sizes = 4096;
    uint64_t max_bitmap_bytes = uint64_t{256} << 20;
    // A device with an IOMMU of its own is in: every mapped page is dirty, always.
    bool physical = false;
    uint32_t stray_capability = 0;  // its `next` leads there
    int start_errnum = 0, bitmap_errnum = 0, unmap_bitmap_errnum = 0;
    unsigned bitmap_queries = 0;

    bool tracking() const { return tracking_; }
    size_t mapped_ranges() const { return mappings_.size(); }
    uint64_t mapped_bytes() const;
    SysValue ioctl(unsigned long request, void* argument);
    // A device fills the page at `iova`; false (and nothing) where it may not.
    bool dma_write(uint64_t iova, std::byte value);
    // As when its last group has left.
    void clear();

 private:
    struct Mapping {
        uint64_t vaddr, length;
        bool writable;
    };
    SysValue get_info(void* argument) const;
    SysValue map_dma(const void* argument);
    SysValue unmap_dma(void* argument);
    SysValue dirty_pages(const void* argument);
    SysValue get_bitmap(const void* argument);
    bool cuts_a_mapping(uint64_t iova, uint64_t size) const;
    SysValue check_bitmap(uint64_t iova, uint64_t size, uint64_t page_size,
                          uint64_t bitmap_bytes) const;
    void report(uint64_t iova, uint64_t size, uint64_t* words);

    std::vector<std::string>& log_;
    std::map<uint64_t, Mapping> mappings_;
    std::set<uint64_t> written_;
    bool tracking_ = false;
};

}  // namespace ferry::test
