// SPDX-License-Identifier: BSD-2-Clause
// What an emulated device implements: the mirror image of VfioDeviceIo. Served in this process by
// vfio::SoftDeviceIo (which runs the state machine and the data sessions), later over a socket.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::hw {

// Guest memory as the device reaches it. Any thread.
class DmaAccess {
 public:
    virtual ~DmaAccess() = default;
    virtual Result<> dma_read(system::Iova iova, MutBytes out) = 0;
    // Not logged by the VMM: tracking its own writes is the device's duty (DMA logging).
    virtual Result<> dma_write(system::Iova iova, ConstBytes in) = 0;
};

// Interrupts out of the device. Any thread.
class IrqSink {
 public:
    virtual ~IrqSink() = default;
    virtual void raise(uint32_t irq_index, uint32_t vector) = 0;
};

// Called by its server. Three groups go on beside each other: regions, several calls at a time; DMA
// logging, one call at a time; everything else, one call at a time.
class DeviceModel {
 public:
    virtual ~DeviceModel() = default;
    // Once, before anything but the questions below; both outlive the model.
    virtual void connect(DmaAccess& dma, IrqSink& irqs) = 0;

    // Constant.
    virtual vfio::DeviceInfo info() const = 0;
    virtual vfio::RegionInfo region_info(uint32_t region) const = 0;
    virtual vfio::IrqInfo irq_info(uint32_t index) const = 0;

    virtual Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) = 0;
    virtual Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) = 0;

    // RUNNING afterwards; data sessions are over, a DMA log goes on.
    virtual Result<> reset() = 0;
    virtual vfio::MigCaps migration_caps() const = 0;  // constant
    // One elementary arc; may take long; on an Error the model stays in `from`, unless it says that
    // it is lost.
    enum class AfterFailure : uint8_t { StaysThere, IsLost };
    struct ArcResult {
        Result<> result;
        AfterFailure after = AfterFailure::StaysThere;
    };
    virtual ArcResult enter(vfio::MigState from, vfio::MigState to) = 0;
    // The saving session's bytes: pre-copy part in pre-copy states (0 or ENOMSG: nothing for now),
    // then the rest in STOP_COPY (0: the end).
    virtual Result<size_t> save_read(vfio::MigState state, MutBytes into) = 0;
    virtual vfio::PrecopyInfo precopy_info() = 0;  // pre-copy states only
    // The resuming session's bytes, in order. RESUMING -> STOP judges the whole.
    virtual Result<size_t> load_write(ConstBytes from) = 0;
    virtual Result<uint64_t> stop_copy_bytes() = 0;  // estimate, any state

    virtual bool dma_logging_supported() const = 0;  // constant
    // The server has checked ranges and sizes, and that logging is off / on.
    virtual Result<> dma_logging_start(std::span<const vfio::DmaLogRange> ranges,
                                       uint64_t page_size) = 0;
    virtual Result<> dma_logging_report(vfio::DmaLogRange range, uint64_t page_size,
                                        util::Bitmap& out) = 0;
    virtual Result<> dma_logging_stop() = 0;
};

}  // namespace ferry::hw
