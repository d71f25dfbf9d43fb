// SPDX-License-Identifier: BSD-2-Clause
// The /dev/iommu of FakeVfioKernel: address spaces, page tables, devices, and the IOMMUs before
// them. Called under the kernel's lock; scripted by the test before and between calls.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/fakes/fake-vfio-device.h"

namespace ferry::test {

class FakeIommufd {
 public:
    FakeIommufd(std::vector<std::string>& log, std::vector<std::string>& faults)
        : log_(log), faults_(faults) {}

    // What stands before a device; by default a software device, which has none.
    struct Iommu {
        int kind = 0;  // a page table serves devices of one kind
        bool tracks = false;
        bool says_it_tracks = true;  // where it does
    };
    std::map<std::string, Iommu> iommus;     // by the device's name
    std::map<unsigned long, int> errnums;    // these requests fail
    uint64_t map_limit_bytes = UINT64_MAX;   // then ENOMEM
    std::vector<std::string> dirty_queries;  // "0x0+0x1000 no-clear"

    size_t objects() const { return spaces_.size() + page_tables_.size() + devices_.size(); }
    size_t page_tables() const { return page_tables_.size(); }
    uint64_t mapped_bytes() const;
    bool tracking() const;
    bool attached(const FakeVfioDevice& device) const;

    SysValue ioctl(unsigned long request, void* argument);
    SysValue bind(FakeVfioDevice& device, uint32_t& id);
    SysValue attach(const FakeVfioDevice& device, uint32_t& to);
    SysValue detach(const FakeVfioDevice& device);
    void device_closed(const FakeVfioDevice& device);
    void closed();  // itself
    // A device fills the page at `iova`; false (and nothing) where it may not.
    bool dma_write(const FakeVfioDevice& device, uint64_t iova, std::byte value);

 private:
    struct Mapping {
        uint64_t user_va, length;
        bool writable;
    };
    struct Space {
        std::map<uint64_t, Mapping> mappings;
    };
    struct PageTable {
        uint32_t space;
        int kind;
        bool can_track;
        bool tracking = false;
        std::set<uint64_t> written;
    };
    struct Device {
        const FakeVfioDevice* device;
        uint32_t attached_to = 0;  // 0: nothing
    };
    SysValue alloc_space(void* argument);
    SysValue map(const void* argument);
    SysValue unmap(void* argument);
    SysValue destroy(const void* argument);
    SysValue hw_info(void* argument);
    SysValue alloc_page_table(void* argument);
    SysValue set_tracking(const void* argument);
    SysValue get_dirty(const void* argument);
    bool in_use(uint32_t id) const;
    Device* find(const FakeVfioDevice& device);
    const Iommu* iommu_of(const FakeVfioDevice& device) const;

    std::vector<std::string>& log_;
    std::vector<std::string>& faults_;
    uint32_t next_id_ = 1;
    std::map<uint32_t, Space> spaces_;
    std::map<uint32_t, PageTable> page_tables_;
    std::map<uint32_t, Device> devices_;
};

}  // namespace ferry::test
