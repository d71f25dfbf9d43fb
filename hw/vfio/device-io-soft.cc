// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/device-io-soft.h"

#include <cerrno>

#include "hw/dma-log.h"
#include "hw/vfio/soft-irqs.h"
#include "hw/vfio/soft-sessions.h"
#include "util/try.h"

namespace ferry::vfio {

SoftDeviceIo::SoftDeviceIo(std::unique_ptr<hw::DeviceModel> model, hw::DmaAccess& dma,
                           util::Env& env, std::string name)
    : model_(*model),
      name_(std::move(name)),
      info_(model_.info()),
      irqs_(std::make_unique<SoftIrqs>(model_)),
      sessions_(std::make_shared<SoftSessions>(std::move(model), env, name_)) {
    model_.connect(dma, *irqs_);
}

SoftDeviceIo::~SoftDeviceIo() {
    sessions_->close();
}

Result<DeviceInfo> SoftDeviceIo::info() {
    return info_;
}

Result<RegionInfo> SoftDeviceIo::region_info(uint32_t region) {
    if (region >= info_.num_regions) return make_errno(EINVAL, "{}: region {}", name_, region);
    return model_.region_info(region);
}

Result<IrqInfo> SoftDeviceIo::irq_info(uint32_t index) {
    return irqs_->info(index);
}

Result<> SoftDeviceIo::set_irq_eventfds(uint32_t index, uint32_t start,
                                        std::span<const BorrowedFd> fds) {
    return irqs_->set_eventfds(index, start, fds);
}

Result<> SoftDeviceIo::disable_irqs(uint32_t index) {
    return irqs_->disable(index);
}

Result<> SoftDeviceIo::set_irq_masked(uint32_t index, uint32_t vector, bool masked) {
    return irqs_->set_masked(index, vector, masked);
}

Result<> SoftDeviceIo::reset() {
    if (!info_.can_reset) return make_errno(EINVAL, "{}: the device has no reset", name_);
    return sessions_->reset();
}

Result<> SoftDeviceIo::check_access(uint32_t region, uint64_t offset, uint64_t length) const {
    const uint64_t size = region < info_.num_regions ? model_.region_info(region).size : 0;
    if (offset > size || length > size - offset) {
        return make_errno(EINVAL, "{}: region {} has {} bytes, access to {:#x}+{}", name_, region,
                          size, offset, length);
    }
    return {};
}

Result<> SoftDeviceIo::region_read(uint32_t region, uint64_t offset, MutBytes out) {
    MIG_CHECK(check_access(region, offset, out.size()));
    if (!model_.region_info(region).readable) {
        return make_errno(EINVAL, "{}: region {} cannot be read", name_, region);
    }
    return model_.region_read(region, offset, out);
}

Result<> SoftDeviceIo::region_write(uint32_t region, uint64_t offset, ConstBytes in) {
    MIG_CHECK(check_access(region, offset, in.size()));
    if (!model_.region_info(region).writable) {
        return make_errno(EINVAL, "{}: region {} cannot be written", name_, region);
    }
    return model_.region_write(region, offset, in);
}

Result<util::MappedRegion> SoftDeviceIo::region_map(uint32_t region, uint64_t, uint64_t) {
    return make_error(ErrorKind::Unsupported, "{}: region {} cannot be mapped", name_, region);
}

Result<MigCaps> SoftDeviceIo::migration_caps() {
    if (!sessions_->caps().supported()) {
        return Error(ErrorKind::Unsupported, name_ + ": the device does not migrate", ENOTTY);
    }
    return sessions_->caps();
}

Result<MigState> SoftDeviceIo::mig_state() {
    MIG_CHECK(migration_caps());
    return sessions_->state();
}

Result<std::unique_ptr<MigDataStream>> SoftDeviceIo::set_mig_state(MigState next) {
    MIG_CHECK(migration_caps());
    auto stream = sessions_->set_state(next);
    if (!stream) return std::move(stream).error().context(name_);
    return stream;
}

Result<uint64_t> SoftDeviceIo::stop_copy_bytes() {
    MIG_CHECK(migration_caps());
    return sessions_->stop_copy_bytes();
}

Result<bool> SoftDeviceIo::dma_logging_supported() {
    return model_.dma_logging_supported();
}

Result<> SoftDeviceIo::check_logging_supported() const {
    if (model_.dma_logging_supported()) return {};
    return Error(ErrorKind::Unsupported, name_ + ": the device has no DMA logging", ENOTTY);
}

Result<> SoftDeviceIo::dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) {
    MIG_CHECK(check_logging_supported());
    MIG_CHECK(hw::check_dma_log_ranges(ranges, page_size), "{}: starting DMA logging", name_);
    const std::lock_guard lock(log_call_);
    if (logging_) return make_errno(EINVAL, "{}: DMA logging is on already", name_);
    MIG_CHECK(model_.dma_logging_start(ranges, page_size));
    logging_ = true;
    return {};
}

Result<> SoftDeviceIo::dma_logging_report(DmaLogRange range, uint64_t page_size,
                                          util::Bitmap& out) {
    MIG_CHECK(check_logging_supported());
    MIG_CHECK(hw::check_dma_log_report(range, page_size, out), "{}: reading the DMA log", name_);
    const std::lock_guard lock(log_call_);
    if (!logging_) return make_errno(EINVAL, "{}: DMA logging is off", name_);
    return model_.dma_logging_report(range, page_size, out);
}

Result<> SoftDeviceIo::dma_logging_stop() {
    MIG_CHECK(check_logging_supported());
    const std::lock_guard lock(log_call_);
    if (!logging_) return {};
    MIG_CHECK(model_.dma_logging_stop());
    logging_ = false;
    return {};
}

}  // namespace ferry::vfio
