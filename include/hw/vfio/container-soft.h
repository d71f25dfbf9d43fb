// SPDX-License-Identifier: BSD-2-Clause
// The DMA address space of devices that live in this process: IOVA to host memory.
#pragma once

#include <map>
#include <shared_mutex>
#include <string>

#include "hw/device-model.h"
#include "hw/vfio/container.h"

namespace ferry::vfio {

// Thread-safe. Unmapping waits for the accesses under way. What devices write is not marked dirty:
// their own DMA log tells, as with hardware.
class SoftContainer final : public DmaContainer, public hw::DmaAccess {
 public:
    explicit SoftContainer(std::string name) : name_(std::move(name)) {}

    std::string_view name() const override { return name_; }
    // EINVAL: empty, not page-aligned, wraps. EEXIST: overlaps a mapping.
    Result<> dma_map(system::Iova iova, MutBytes host, MapAccess access) override;
    // May span mappings and holes, but not cut a mapping (EINVAL).
    Result<> dma_unmap(system::Iova iova, uint64_t length) override;
    // Nobody can tell: all of it.
    Result<> dma_unmap_written(system::Iova iova, uint64_t length, util::Bitmap& written) override;

    // EFAULT, and nothing is done, unless all of it is mapped, for writing if it is written.
    Result<> dma_read(system::Iova iova, MutBytes out) override;
    Result<> dma_write(system::Iova iova, ConstBytes in) override;

 private:
    struct Mapping {
        MutBytes host;
        MapAccess access;
    };
    // The mapped memory from `iova` on, at most `length`, if the devices may access it so; empty
    // in a hole.
    MutBytes piece(system::Iova iova, uint64_t length, MapAccess access) const;
    Result<> check_mapped(system::Iova iova, uint64_t length, MapAccess access) const;

    const std::string name_;
    mutable std::shared_mutex mutex_;  // shared while memory is accessed
    std::map<system::Iova, Mapping> mappings_;
};

}  // namespace ferry::vfio
