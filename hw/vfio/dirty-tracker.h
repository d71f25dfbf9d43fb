// SPDX-License-Identifier: BSD-2-Clause
// Who can tell what a device wrote to guest memory: its own log of DMA writes, or that of the IOMMU
// in front of it, which several devices may share. A device that has neither has no tracker.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "hw/vfio/iommu-dirty-log.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/bitmap.h"
#include "util/result.h"

namespace ferry::vfio {

// One call at a time, on the device's worker thread (of one of the devices, where they share it).
class DmaTracker {
 public:
    virtual ~DmaTracker() = default;
    virtual const std::string& label() const = 0;  // "device d0": for messages
    // `ranges`: what the devices can reach, by address.
    virtual Result<> start(std::span<const DmaLogRange> ranges) = 0;
    virtual Result<> stop() = 0;
    // ORs into `out`, a bit per page of `range`, and clears the log there. `range`: at most
    // kMaxDirtyQueryBytes; see IommuDirtyLog::query.
    virtual Result<> query(DmaLogRange range, util::Bitmap& out) = 0;
    // The log is about all that is mapped for the devices, at any time; else only `ranges`.
    virtual bool follows_mappings() const = 0;
};

std::unique_ptr<DmaTracker> device_log_tracker(const std::string& device, VfioDeviceIo& io);
// `device`: one of those behind it.
std::unique_ptr<DmaTracker> iommu_tracker(const std::string& device, IommuDirtyLog& log);

}  // namespace ferry::vfio
