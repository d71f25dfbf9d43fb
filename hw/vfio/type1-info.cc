// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/type1-info.h"

#include <cstring>
#include <vector>

#include "hw/vfio/capability-chain.h"
#include "hw/vfio/uapi.h"
#include "system/memory.h"
#include "util/try.h"

namespace ferry::vfio {

Result<Type1Info> parse_type1_info(ConstBytes answer) {
    uapi::Type1Info fixed{};
    std::memcpy(&fixed, answer.data(), std::min(answer.size(), sizeof(fixed)));
    Type1Info info;
    if (answer.size() < sizeof(fixed) || (fixed.flags & uapi::kType1InfoCaps) == 0) return info;
    MIG_TRY(const std::vector<Capability> chain,
            parse_capability_chain(answer, sizeof(fixed), fixed.cap_offset, "IOMMU info"));
    for (const Capability& capability : chain) {
        if (capability.id == uapi::kType1CapIovaRange) info.pins_everything = true;
        if (capability.id != uapi::kType1CapMigration) continue;
        uapi::Type1MigrationCap migration{};
        if (capability.bytes.size() < sizeof(migration)) {
            return make_error(ErrorKind::Protocol,
                              "IOMMU info: its migration capability has {} bytes, {} are needed",
                              capability.bytes.size(), sizeof(migration));
        }
        std::memcpy(&migration, capability.bytes.data(), sizeof(migration));
        // The kernel takes its smallest page only.
        const uint64_t smallest = migration.pgsize_bitmap & (~migration.pgsize_bitmap + 1);
        if (smallest == system::kPageSize) info.max_bitmap_bytes = migration.max_dirty_bitmap_size;
    }
    return info;
}

Result<Type1Info> query_type1_info(Kernel& kernel, BorrowedFd container) {
    constexpr int kAttempts = 3;  // the chain may have grown in between, but not for ever
    uint32_t size = sizeof(uapi::Type1Info);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        std::vector<std::byte> answer(size);
        uapi::Type1Info fixed{};
        fixed.argsz = size;
        std::memcpy(answer.data(), &fixed, sizeof(fixed));
        MIG_CHECK(kernel.ioctl(container, uapi::kType1GetInfo, answer.data(),
                               "ioctl(VFIO_IOMMU_GET_INFO)"));
        std::memcpy(&fixed, answer.data(), sizeof(fixed));
        if (fixed.argsz <= size) return parse_type1_info(answer);
        if (fixed.argsz > kMaxType1InfoBytes) {
            return make_error(ErrorKind::LimitExceeded,
                              "IOMMU info wants {} bytes, the limit is {}", fixed.argsz,
                              kMaxType1InfoBytes);
        }
        size = fixed.argsz;
    }
    return make_error(ErrorKind::Protocol, "IOMMU info keeps growing");
}

}  // namespace ferry::vfio
