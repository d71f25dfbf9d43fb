// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/dirty-tracker.h"

#include <cerrno>
#include <vector>

#include "hw/vfio/dma-log-ranges.h"
#include "system/memory.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

// What a driver says to more ranges, or wider ones, than its device can log.
bool may_be_too_many(const Error& error) {
    const int errnum = error.errnum();
    return errnum == E2BIG || errnum == ENOMEM || errnum == ENOSPC || errnum == EOPNOTSUPP;
}

class DeviceLogTracker final : public DmaTracker {
 public:
    DeviceLogTracker(const std::string& device, VfioDeviceIo& io)
        : label_("device " + device), io_(io) {}

    const std::string& label() const override { return label_; }
    bool follows_mappings() const override { return false; }
    Result<> stop() override { return io_.dma_logging_stop(); }
    Result<> query(DmaLogRange range, util::Bitmap& out) override {
        return io_.dma_logging_report(range, system::kPageSize, out);
    }

    // Few devices log many ranges: what is too much for one is tried with half as many, until one
    // range covers all.
    Result<> start(std::span<const DmaLogRange> wanted) override {
        std::vector<DmaLogRange> ranges =
            merge_ranges({wanted.begin(), wanted.end()}, kMaxDmaLogRanges);
        for (;;) {
            auto started = io_.dma_logging_start(ranges, system::kPageSize);
            if (started) return {};
            if (ranges.size() == 1 || !may_be_too_many(started.error())) {
                return std::move(started).error().context(
                    "starting the log of its writes to guest memory (the property "
                    "x-device-dirty-page-tracking=off does without it)");
            }
            const size_t fewer = ranges.size() / 2;
            ranges = merge_ranges(std::move(ranges), fewer);
        }
    }

 private:
    const std::string label_;
    VfioDeviceIo& io_;
};

class IommuTracker final : public DmaTracker {
 public:
    IommuTracker(const std::string& device, IommuDirtyLog& log)
        : label_(fmt::format("{} of device {}", log.name(), device)), log_(log) {}

    const std::string& label() const override { return label_; }
    bool follows_mappings() const override { return true; }
    Result<> start(std::span<const DmaLogRange>) override {
        MIG_CHECK(log_.start(), "starting to track writes to guest memory");
        return {};
    }
    Result<> stop() override { return log_.stop(); }
    Result<> query(DmaLogRange range, util::Bitmap& out) override { return log_.query(range, out); }

 private:
    const std::string label_;
    IommuDirtyLog& log_;
};

}  // namespace

std::unique_ptr<DmaTracker> device_log_tracker(const std::string& device, VfioDeviceIo& io) {
    return std::make_unique<DeviceLogTracker>(device, io);
}

std::unique_ptr<DmaTracker> iommu_tracker(const std::string& device, IommuDirtyLog& log) {
    return std::make_unique<IommuTracker>(device, log);
}

}  // namespace ferry::vfio
