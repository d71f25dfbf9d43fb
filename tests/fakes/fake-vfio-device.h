// SPDX-License-Identifier: BSD-2-Clause
// A device of FakeVfioKernel: what its driver would do. Scripted by the test through its public
// members before and between calls; calls themselves go through the kernel, under its lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "util/bytes.h"
#include "util/mapped-region.h"
#include "util/unique-fd.h"

namespace ferry::test {

// What a system call gave: a value, or -errno.
using SysValue = long;

class FakeVfioDevice {
 public:
    FakeVfioDevice(std::string name, unsigned group, std::vector<std::string>& log,
                   std::vector<std::string>& faults);

    struct Region {
        uint64_t size = 0;
        uint32_t flags = 0;   // VFIO_REGION_INFO_FLAG_READ ... without CAPS
        bool absent = false;  // EINVAL instead of size 0
        // Follows the struct when not empty; offsets inside are the test's business.
        std::vector<std::byte> capabilities;
        uint32_t first_capability = 32;  // cap_offset
        util::MappedRegion memory;       // a file's, so that it can be mapped again
        UniqueFd file;
        MutBytes bytes() const { return memory.bytes().first(size); }
    };
    struct Irq {
        uint32_t count = 0;
        uint32_t flags = 0;
        bool absent = false;
    };

    Region& add_region(uint32_t index, uint64_t size, uint32_t flags);
    void set_irq(uint32_t index, uint32_t count, uint32_t flags);
    // What the driver would do when the hardware interrupts; whether an eventfd got it.
    bool raise(uint32_t index, uint32_t vector);
    bool connected(uint32_t index, uint32_t vector) const;
    // The device writes a page of guest memory.
    void dma_write(uint64_t iova) { dma_written_.insert(iova); }

    std::string name;
    unsigned group;
    bool can_reset = true;
    std::vector<Region> regions;
    std::vector<Irq> irqs;
    uint32_t host_vectors = UINT32_MAX;  // that the host can spare
    bool unmasks_by_eventfd = true;      // INTx
    size_t max_transfer = SIZE_MAX;      // of one pread or pwrite

    // Migration.
    uint64_t mig_flags = 7;  // 0: ENOTTY
    vfio::MigState state = vfio::MigState::Running;
    std::vector<std::byte> precopy_data;   // readable in pre-copy states
    std::vector<std::byte> stopcopy_data;  // after it, in STOP_COPY
    bool enomsg = true;                    // the pre-copy end; else 0
    int eagain_reads = 0;                  // so often a read says EAGAIN first
    int eagain_writes = 0;
    size_t max_data_transfer = SIZE_MAX;  // of one read or write of data
    std::optional<int> data_error;        // of the next read or write of data
    std::vector<std::byte> received;      // of the resuming session
    uint64_t stop_copy_length = 0;
    std::optional<int> data_size_error;
    uint64_t initial_bytes = 0;
    uint64_t dirty_bytes = 0;
    // This arc fails once; the device stays in `from`, unless `left_in` says otherwise.
    struct ArcFault {
        vfio::MigState from, to;
        int errnum;
        std::optional<vfio::MigState> left_in;
    };
    std::optional<ArcFault> arc_fault;
    bool no_descriptor_left = false;  // the next data session cannot get one: EMFILE
    bool dma_logging = true;
    unsigned resets = 0;

 private:
    friend class FakeVfioKernel;
    SysValue ioctl(unsigned long request, void* argument);
    SysValue get_info(void* argument);
    SysValue get_region_info(void* argument);
    SysValue get_irq_info(void* argument);
    SysValue set_irqs(const void* argument);
    SysValue connect_eventfds(uint32_t index, uint32_t start, const std::vector<int32_t>& fds);
    SysValue feature(void* argument);
    SysValue get_state(MutBytes payload);
    // -1 errno; else the session that must get a descriptor, 0 for none.
    SysValue set_state(MutBytes payload);
    SysValue log_start(MutBytes payload);
    SysValue log_report(MutBytes payload);
    SysValue reset();
    SysValue access(uint64_t file_offset, uint64_t size, MutBytes& where);
    SysValue read_data(uint64_t session, MutBytes into);
    SysValue write_data(uint64_t session, ConstBytes from);
    SysValue precopy_info(uint64_t session, void* argument);
    void enter(vfio::MigState next);
    vfio::MigCaps caps() const;
    void fault(const std::string& text) { faults_.push_back(name + ": " + text); }

    std::vector<std::string>& log_;
    std::vector<std::string>& faults_;
    std::map<std::pair<uint32_t, uint32_t>, UniqueFd> eventfds_;
    std::map<uint32_t, uint32_t> allocated_;  // vectors per enabled index
    bool intx_masked_ = false;
    UniqueFd intx_unmask_;  // an eventfd; invalid: none
    uint64_t session_ = 0;  // the open one, 0: none
    uint64_t last_session_ = 0;
    size_t data_position_ = 0;
    uint64_t new_session_ = 0;  // opened by the last arc
    std::optional<std::vector<std::pair<uint64_t, uint64_t>>> log_ranges_;
    std::set<uint64_t> dma_written_;
};

inline constexpr uint64_t kFakeRegionStride = uint64_t{1} << 36;

}  // namespace ferry::test
