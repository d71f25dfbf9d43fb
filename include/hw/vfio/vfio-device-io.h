// SPDX-License-Identifier: BSD-2-Clause
// Everything one VFIO device can do, wherever it lives: KernelDeviceIo (ioctl), SoftDeviceIo (a
// DeviceModel in this process), later a vfio-user socket; ForwardingDeviceIo is the base of tracers
// and fault injectors. Offsets and sizes are bytes. Semantics are those of <linux/vfio.h>.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "util/bitmap.h"
#include "util/bytes.h"
#include "util/mapped-region.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vfio {

// PCI's fixed region and interrupt indexes.
namespace pci_region {
inline constexpr uint32_t kBar0 = 0, kRom = 6, kConfig = 7, kVga = 8, kCount = 9;
}
namespace pci_irq {
inline constexpr uint32_t kIntx = 0, kMsi = 1, kMsix = 2, kErr = 3, kReq = 4, kCount = 5;
}

struct DeviceInfo {
    bool can_reset = false;
    bool is_pci = false;
    uint32_t num_regions = 0;
    uint32_t num_irqs = 0;
};
struct RegionInfo {
    uint64_t size = 0;  // 0: not implemented
    bool readable = false, writable = false, mappable = false;
    struct Area {
        uint64_t offset, size;
    };
    std::vector<Area> mmap_areas;  // the parts that may be mapped; the whole when mappable
};
struct IrqInfo {
    uint32_t count = 0;
    bool eventfd = false, maskable = false, automasked = false, noresize = false;
};
struct DmaLogRange {
    uint64_t iova, length;
    friend bool operator==(const DmaLogRange&, const DmaLogRange&) = default;
};

struct PrecopyInfo {
    uint64_t initial_bytes = 0;
    uint64_t dirty_bytes = 0;
};

// The data session that a state change opened. One reader or writer at a time; set_mig_state may
// run beside it. Destruction closes it and does not change the device's state.
class MigDataStream {
 public:
    virtual ~MigDataStream() = default;
    struct Read {
        size_t bytes = 0;
        // 0 bytes: in a pre-copy state "nothing for now" (ENOMSG and 0 alike), in STOP_COPY the end
    };
    virtual Result<Read> read_some(MutBytes into) = 0;
    virtual Result<size_t> write_some(ConstBytes from) = 0;  // may be short, never 0
    virtual Result<PrecopyInfo> precopy_info() = 0;          // pre-copy states only
};

class IommuDirtyLog;  // iommu-dirty-log.h

class VfioDeviceIo {
 public:
    virtual ~VfioDeviceIo() = default;  // closes; leaves the device in its state

    virtual Result<DeviceInfo> info() = 0;
    virtual Result<RegionInfo> region_info(uint32_t region) = 0;  // capabilities already bounded
    virtual Result<IrqInfo> irq_info(uint32_t index) = 0;
    // Connects eventfds to vectors start.. (invalid fd = none). Borrowed for the call only.
    virtual Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                                      std::span<const BorrowedFd> fds) = 0;
    virtual Result<> disable_irqs(uint32_t index) = 0;
    virtual Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) = 0;
    // A signal of the eventfd unmasks the vector, until the index is disabled. Borrowed for the
    // call only. Unsupported where the driver cannot, as most of those without hardware.
    virtual Result<> set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd) {
        return Error(ErrorKind::Unsupported, "no eventfd can unmask vector " +
                                                 std::to_string(vector) + " of interrupt index " +
                                                 std::to_string(index));
    }
    virtual Result<> reset() = 0;  // RUNNING afterwards, data sessions are over

    // Any thread. All of the span, or an Error; never short.
    virtual Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) = 0;
    virtual Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) = 0;
    // A mapping of a part of region_info().mmap_areas; Unsupported where there is none.
    virtual Result<util::MappedRegion> region_map(uint32_t region, uint64_t offset,
                                                  uint64_t size) = 0;

    // Migration v2. One caller at a time. Unsupported (errno ENOTTY) without migration.
    virtual Result<MigCaps> migration_caps() = 0;
    virtual Result<MigState> mig_state() = 0;
    // Null unless the last step opens a data session. On an Error ask mig_state() where it stopped.
    virtual Result<std::unique_ptr<MigDataStream>> set_mig_state(MigState next) = 0;
    virtual Result<uint64_t> stop_copy_bytes() = 0;  // MIG_DATA_SIZE, an estimate

    // DMA logging, IOVA space. probe: whether the device can. start: page_size is a hint.
    virtual Result<bool> dma_logging_supported() = 0;
    virtual Result<> dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) = 0;
    // ORs into `out` (bit i = page iova + i * page_size) and clears the log.
    virtual Result<> dma_logging_report(DmaLogRange range, uint64_t page_size,
                                        util::Bitmap& out) = 0;
    virtual Result<> dma_logging_stop() = 0;
    // What stands between the device and memory, if that knows what the device wrote. The same for
    // the device's whole life, and does not call the driver.
    virtual IommuDirtyLog* iommu_dirty_log() { return nullptr; }
};

}  // namespace ferry::vfio
