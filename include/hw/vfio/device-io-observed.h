// SPDX-License-Identifier: BSD-2-Clause
// Names each call on the activity board while it lasts: a thread inside a driver can't be woken,
// but a person can be told where it is.
#pragma once

#include <memory>
#include <string>

#include "hw/vfio/device-io-forwarding.h"
#include "util/env.h"

namespace ferry::vfio {

class ObservedDeviceIo final : public ForwardingDeviceIo {
 public:
    // `label` as in messages: VfioIdentity::label(). The board must outlive this and its streams.
    ObservedDeviceIo(std::unique_ptr<VfioDeviceIo> observed, util::Env& env, std::string label);

    Result<DeviceInfo> info() override;
    Result<RegionInfo> region_info(uint32_t region) override;
    Result<IrqInfo> irq_info(uint32_t index) override;
    Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                              std::span<const BorrowedFd> fds) override;
    Result<> disable_irqs(uint32_t index) override;
    Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) override;
    Result<> set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) override;
    Result<> reset() override;

    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override;
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override;
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
    util::ActivityBoard::Entry now(std::string_view call) {
        return {board_, label_, std::string(call)};
    }

    util::ActivityBoard& board_;
    const std::string label_;
};

}  // namespace ferry::vfio
