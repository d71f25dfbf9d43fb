// SPDX-License-Identifier: BSD-2-Clause
// The calls of an open /dev/iommu, and those that tie a device to it. Errors name the call.
#pragma once

#include <cstdint>

#include "hw/vfio/container.h"
#include "hw/vfio/kernel.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/bytes.h"

namespace ferry::vfio {

enum class IommufdId : uint32_t {};  // of an IOAS, a page table, a device; the kernel's number

// Thread-safe, as far as the kernel is.
class Iommufd {
 public:
    // The descriptor stays the caller's, open as long as this.
    Iommufd(Kernel& kernel, BorrowedFd fd) : kernel_(kernel), fd_(fd) {}

    Result<IommufdId> alloc_ioas();
    Result<> map(IommufdId ioas, system::Iova iova, MutBytes host, MapAccess access);
    Result<> unmap(IommufdId ioas, system::Iova iova, uint64_t length);
    Result<> destroy(IommufdId id);

    // Whether the IOMMU in front of the device can tell which pages were written. ENOENT: there is
    // none, the device is software.
    Result<bool> tracks_dirty_pages(IommufdId device);
    enum class DirtyTracking : uint8_t { Without, With };
    Result<IommufdId> alloc_page_table(IommufdId device, IommufdId ioas, DirtyTracking tracking);
    Result<> set_dirty_tracking(IommufdId page_table, bool on);
    // ORs into `pages`, which has a bit for each of the range.
    enum class Clear : uint8_t { No, Yes };
    Result<> get_dirty_pages(IommufdId page_table, system::Iova iova, uint64_t length, Clear clear,
                             util::Bitmap& pages);

    Result<IommufdId> bind(BorrowedFd device);
    Result<> attach(BorrowedFd device, IommufdId page_table_or_ioas);
    Result<> detach(BorrowedFd device);

 private:
    Kernel& kernel_;
    const BorrowedFd fd_;
};

}  // namespace ferry::vfio
