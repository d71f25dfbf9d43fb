// SPDX-License-Identifier: BSD-2-Clause
// A VfioDeviceIo (and its data stream) that hands everything to another one: the base of those that
// observe or disturb. Override what you need. See docs/devel/device-io.rst.
#pragma once

#include <memory>
#include <utility>

#include "hw/vfio/vfio-device-io.h"

namespace ferry::vfio {

class ForwardingDeviceIo : public VfioDeviceIo {
 public:
    explicit ForwardingDeviceIo(std::unique_ptr<VfioDeviceIo> inner) : inner_(std::move(inner)) {}

    Result<DeviceInfo> info() override { return inner_->info(); }
    Result<RegionInfo> region_info(uint32_t region) override { return inner_->region_info(region); }
    Result<IrqInfo> irq_info(uint32_t index) override { return inner_->irq_info(index); }
    Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                              std::span<const BorrowedFd> fds) override {
        return inner_->set_irq_eventfds(index, start, fds);
    }
    Result<> disable_irqs(uint32_t index) override { return inner_->disable_irqs(index); }
    Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) override {
        return inner_->set_irq_masked(index, vector, masked);
    }
    Result<> set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) override {
        return inner_->set_irq_unmask_eventfd(index, vector, fd);
    }
    Result<> reset() override { return inner_->reset(); }

    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override {
        return inner_->region_read(region, offset, out);
    }
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override {
        return inner_->region_write(region, offset, in);
    }
    Result<util::MappedRegion> region_map(uint32_t region, uint64_t offset,
                                          uint64_t size) override {
        return inner_->region_map(region, offset, size);
    }

    Result<MigCaps> migration_caps() override { return inner_->migration_caps(); }
    Result<MigState> mig_state() override { return inner_->mig_state(); }
    Result<std::unique_ptr<MigDataStream>> set_mig_state(MigState next) override {
        return inner_->set_mig_state(next);
    }
    Result<uint64_t> stop_copy_bytes() override { return inner_->stop_copy_bytes(); }

    Result<bool> dma_logging_supported() override { return inner_->dma_logging_supported(); }
    Result<> dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) override {
        return inner_->dma_logging_start(ranges, page_size);
    }
    Result<> dma_logging_report(DmaLogRange range, uint64_t page_size, util::Bitmap& out) override {
        return inner_->dma_logging_report(range, page_size, out);
    }
    Result<> dma_logging_stop() override { return inner_->dma_logging_stop(); }
    IommuDirtyLog* iommu_dirty_log() override { return inner_->iommu_dirty_log(); }

 protected:
    VfioDeviceIo& inner() { return *inner_; }

 private:
    std::unique_ptr<VfioDeviceIo> inner_;
};

class ForwardingDataStream : public MigDataStream {
 public:
    explicit ForwardingDataStream(std::unique_ptr<MigDataStream> inner)
        : inner_(std::move(inner)) {}

    Result<Read> read_some(MutBytes into) override { return inner_->read_some(into); }
    Result<size_t> write_some(ConstBytes from) override { return inner_->write_some(from); }
    Result<PrecopyInfo> precopy_info() override { return inner_->precopy_info(); }

 protected:
    MigDataStream& inner() { return *inner_; }

 private:
    std::unique_ptr<MigDataStream> inner_;
};

}  // namespace ferry::vfio
