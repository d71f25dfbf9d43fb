// SPDX-License-Identifier: BSD-2-Clause
// VfioDeviceIo over a DeviceModel in this process: what the kernel's VFIO core and a driver's
// glue do (checks, paths, data sessions, eventfds) is done here, the rest by the model.
// See docs/devel/device-io.rst.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "hw/device-model.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/env.h"

namespace ferry::vfio {

class SoftIrqs;
class SoftSessions;

// Thread-safe. mig_state(), regions, interrupts, information and DMA logging go on while an arc
// takes its time; data streams, stop_copy_bytes() and reset() wait until it is over.
class SoftDeviceIo final : public VfioDeviceIo {
 public:
    // Connects the model, which goes with this object. `dma` must outlive it. Data streams may
    // outlive it: their session is over then.
    SoftDeviceIo(std::unique_ptr<hw::DeviceModel> model, hw::DmaAccess& dma, util::Env& env,
                 std::string name);
    ~SoftDeviceIo() override;
    SoftDeviceIo(const SoftDeviceIo&) = delete;
    SoftDeviceIo& operator=(const SoftDeviceIo&) = delete;

    Result<DeviceInfo> info() override;
    Result<RegionInfo> region_info(uint32_t region) override;
    Result<IrqInfo> irq_info(uint32_t index) override;
    Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                              std::span<const BorrowedFd> fds) override;
    Result<> disable_irqs(uint32_t index) override;
    Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) override;
    Result<> reset() override;

    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override;
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override;
    // Unsupported: a model has no memory to map.
    Result<util::MappedRegion> region_map(uint32_t region, uint64_t offset, uint64_t size) override;

    Result<MigCaps> migration_caps() override;
    Result<MigState> mig_state() override;
    Result<std::unique_ptr<MigDataStream>> set_mig_state(MigState next) override;
    Result<uint64_t> stop_copy_bytes() override;

    Result<bool> dma_logging_supported() override;
    Result<> dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) override;
    Result<> dma_logging_report(DmaLogRange range, uint64_t page_size, util::Bitmap& out) override;
    Result<> dma_logging_stop() override;

 private:
    Result<> check_access(uint32_t region, uint64_t offset, uint64_t length) const;
    Result<> check_logging_supported() const;

    hw::DeviceModel& model_;  // belongs to sessions_
    const std::string name_;
    const DeviceInfo info_;
    std::unique_ptr<SoftIrqs> irqs_;
    std::shared_ptr<SoftSessions> sessions_;  // shared with the data streams

    std::mutex log_call_;  // one call of DMA logging at a time
    bool logging_ = false;
};

}  // namespace ferry::vfio
