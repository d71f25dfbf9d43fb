// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/device-io-observed.h"

#include "hw/vfio/device-io-calls.h"

namespace ferry::vfio {

namespace {

class ObservedDataStream final : public ForwardingDataStream {
 public:
    ObservedDataStream(std::unique_ptr<MigDataStream> observed, util::ActivityBoard& board,
                       std::string label)
        : ForwardingDataStream(std::move(observed)), board_(board), label_(std::move(label)) {}

    Result<Read> read_some(MutBytes into) override {
        const auto entry = now(call::kReadState);
        return ForwardingDataStream::read_some(into);
    }
    Result<size_t> write_some(ConstBytes from) override {
        const auto entry = now(call::kWriteState);
        return ForwardingDataStream::write_some(from);
    }
    Result<PrecopyInfo> precopy_info() override {
        const auto entry = now(call::kPrecopyInfo);
        return ForwardingDataStream::precopy_info();
    }

 private:
    util::ActivityBoard::Entry now(std::string_view call) {
        return {board_, label_, std::string(call)};
    }

    util::ActivityBoard& board_;
    const std::string label_;
};

}  // namespace

ObservedDeviceIo::ObservedDeviceIo(std::unique_ptr<VfioDeviceIo> observed, util::Env& env,
                                   std::string label)
    : ForwardingDeviceIo(std::move(observed)), board_(env.activity), label_(std::move(label)) {}

Result<DeviceInfo> ObservedDeviceIo::info() {
    const auto entry = now(call::kInfo);
    return ForwardingDeviceIo::info();
}

Result<RegionInfo> ObservedDeviceIo::region_info(uint32_t region) {
    const auto entry = now(call::kRegionInfo);
    return ForwardingDeviceIo::region_info(region);
}

Result<IrqInfo> ObservedDeviceIo::irq_info(uint32_t index) {
    const auto entry = now(call::kIrqInfo);
    return ForwardingDeviceIo::irq_info(index);
}

Result<> ObservedDeviceIo::set_irq_eventfds(uint32_t index, uint32_t start,
                                            std::span<const BorrowedFd> fds) {
    const auto entry = now(call::kSetIrqs);
    return ForwardingDeviceIo::set_irq_eventfds(index, start, fds);
}

Result<> ObservedDeviceIo::disable_irqs(uint32_t index) {
    const auto entry = now(call::kDisableIrqs);
    return ForwardingDeviceIo::disable_irqs(index);
}

Result<> ObservedDeviceIo::set_irq_masked(uint32_t index, uint32_t vector, bool masked) {
    const auto entry = now(masked ? call::kMaskIrq : call::kUnmaskIrq);
    return ForwardingDeviceIo::set_irq_masked(index, vector, masked);
}

Result<> ObservedDeviceIo::set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) {
    const auto entry = now(call::kUnmaskEventfd);
    return ForwardingDeviceIo::set_irq_unmask_eventfd(index, vector, fd);
}

Result<> ObservedDeviceIo::reset() {
    const auto entry = now(call::kReset);
    return ForwardingDeviceIo::reset();
}

Result<> ObservedDeviceIo::region_read(uint32_t region, uint64_t offset, MutBytes out) {
    const auto entry = now(call::read_region(region));
    return ForwardingDeviceIo::region_read(region, offset, out);
}

Result<> ObservedDeviceIo::region_write(uint32_t region, uint64_t offset, ConstBytes in) {
    const auto entry = now(call::write_region(region));
    return ForwardingDeviceIo::region_write(region, offset, in);
}

Result<util::MappedRegion> ObservedDeviceIo::region_map(uint32_t region, uint64_t offset,
                                                        uint64_t size) {
    const auto entry = now(call::map_region(region));
    return ForwardingDeviceIo::region_map(region, offset, size);
}

Result<MigCaps> ObservedDeviceIo::migration_caps() {
    const auto entry = now(call::kCaps);
    return ForwardingDeviceIo::migration_caps();
}

Result<MigState> ObservedDeviceIo::mig_state() {
    const auto entry = now(call::kGetState);
    return ForwardingDeviceIo::mig_state();
}

Result<std::unique_ptr<MigDataStream>> ObservedDeviceIo::set_mig_state(MigState next) {
    const auto entry = now(call::set_state(next));
    auto stream = ForwardingDeviceIo::set_mig_state(next);
    if (!stream || *stream == nullptr) return stream;
    return std::make_unique<ObservedDataStream>(std::move(*stream), board_, label_);
}

Result<uint64_t> ObservedDeviceIo::stop_copy_bytes() {
    const auto entry = now(call::kStopCopyBytes);
    return ForwardingDeviceIo::stop_copy_bytes();
}

Result<bool> ObservedDeviceIo::dma_logging_supported() {
    const auto entry = now(call::kLogProbe);
    return ForwardingDeviceIo::dma_logging_supported();
}

Result<> ObservedDeviceIo::dma_logging_start(std::span<const DmaLogRange> ranges,
                                             uint64_t page_size) {
    const auto entry = now(call::kLogStart);
    return ForwardingDeviceIo::dma_logging_start(ranges, page_size);
}

Result<> ObservedDeviceIo::dma_logging_report(DmaLogRange range, uint64_t page_size,
                                              util::Bitmap& out) {
    const auto entry = now(call::kLogReport);
    return ForwardingDeviceIo::dma_logging_report(range, page_size, out);
}

Result<> ObservedDeviceIo::dma_logging_stop() {
    const auto entry = now(call::kLogStop);
    return ForwardingDeviceIo::dma_logging_stop();
}

}  // namespace ferry::vfio
