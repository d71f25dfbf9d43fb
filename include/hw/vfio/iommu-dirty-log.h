// SPDX-License-Identifier: BSD-2-Clause
// What stands between devices and memory, an IOMMU or the kernel in its place, may know what they
// wrote. Used for a device that has no log of its own.
#pragma once

#include <cstdint>
#include <string_view>

#include "hw/vfio/vfio-device-io.h"
#include "util/bitmap.h"
#include "util/result.h"

namespace ferry::vfio {

// The most that one query is about; bounds its bitmap to 2 MiB. A larger mapping is asked about in
// pieces that begin at multiples of this, counted from the mapping's start.
inline constexpr uint64_t kMaxDirtyQueryBytes = uint64_t{64} << 30;

// Of one or more devices. Calls wait for each other; any thread.
class IommuDirtyLog {
 public:
    virtual ~IommuDirtyLog() = default;
    virtual std::string_view name() const = 0;  // for messages
    // Whether a device may rely on it without enable-migration=on. As in QEMU, type1 needs that: it
    // sees what drivers do on behalf of their devices, not what hardware writes.
    enum class Consent : uint8_t { NotNeeded, Needed };
    virtual Consent consent() const = 0;

    virtual Result<> start() = 0;  // also when it has been started
    virtual Result<> stop() = 0;   // also when it has not
    // ORs into `out` (bit i = page iova + i * kPageSize) and clears the log there. `range`: a
    // mapping of the devices' container or one of its pieces.
    virtual Result<> query(DmaLogRange range, util::Bitmap& out) = 0;
};

}  // namespace ferry::vfio
