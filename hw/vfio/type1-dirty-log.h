// SPDX-License-Identifier: BSD-2-Clause
// A type1 container's mappings and the pages in them that were written.
#pragma once

#include <map>
#include <mutex>

#include "hw/vfio/container.h"
#include "hw/vfio/iommu-dirty-log.h"
#include "hw/vfio/kernel.h"
#include "hw/vfio/type1-info.h"
#include "system/memory.h"

namespace ferry::vfio {

// Any thread. Maps and unmaps through it too, because the kernel answers only for whole mappings:
// none is larger than a query may be.
class Type1DirtyLog final : public IommuDirtyLog {
 public:
    // Both outlive it; the descriptor is the container's.
    Type1DirtyLog(Kernel& kernel, BorrowedFd container) : kernel_(kernel), container_(container) {}

    // After a group has come: what the container can do now.
    void set_info(const Type1Info& info);
    // Whether it is any good.
    bool usable() const;

    Result<> map(system::Iova iova, MutBytes host, MapAccess access);
    // `written`: gets what was written since the last query, all of the range when that is
    // unknown; may be null.
    Result<> unmap(system::Iova iova, uint64_t length, util::Bitmap* written);

    std::string_view name() const override { return "/dev/vfio/vfio"; }
    Consent consent() const override { return Consent::Needed; }
    Result<> start() override;
    Result<> stop() override;
    Result<> query(DmaLogRange range, util::Bitmap& out) override;

 private:
    Result<> switch_tracking(uint32_t flag, std::string_view call);
    Result<> map_piece(system::Iova iova, MutBytes host, MapAccess access);
    Result<> unmap_piece(system::Iova iova, uint64_t length);
    Result<> unmap_piece_written(DmaLogRange piece, util::Bitmap& out);
    Result<> query_piece(DmaLogRange piece, util::Bitmap& out);
    uint64_t max_piece_bytes() const;

    Kernel& kernel_;
    const BorrowedFd container_;
    mutable std::mutex mutex_;  // all below, and held across calls: a mapping stays while asked
    Type1Info info_;
    bool started_ = false;
    std::map<system::Iova, uint64_t> mappings_;  // as the kernel has them
};

}  // namespace ferry::vfio
