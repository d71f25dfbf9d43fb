// SPDX-License-Identifier: BSD-2-Clause
// VFIO_IOMMU_GET_INFO: what a type1 container can say about dirty pages.
#pragma once

#include <cstdint>

#include "hw/vfio/kernel.h"
#include "util/bytes.h"

namespace ferry::vfio {

struct Type1Info {
    // Zero where the kernel tracks no pages of our size.
    uint64_t max_bitmap_bytes = 0;
    // A device behind an IOMMU is in the container. All memory is pinned for it, and the kernel
    // reports every mapped page as dirty, always.
    bool pins_everything = false;
};

inline constexpr uint32_t kMaxType1InfoBytes = 64 * 1024;

Result<Type1Info> query_type1_info(Kernel& kernel, BorrowedFd container);
Result<Type1Info> parse_type1_info(ConstBytes answer);

}  // namespace ferry::vfio
