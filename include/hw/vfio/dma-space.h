// SPDX-License-Identifier: BSD-2-Clause
// DmaSpace: the addresses that devices behind a virtual IOMMU use, and the guest memory that they
// mean at the moment. The virtual IOMMU belongs to the embedder, who tells of every change.
// docs/devel/dirty-tracking.rst, "Behind a virtual IOMMU".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "hw/vfio/container.h"
#include "system/memory.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::vfio {

// Any thread. A change waits for a walk that has come to the translation it is about.
class DmaSpace {
 public:
    struct Translation {
        system::Iova iova;
        system::Gpa gpa;
        uint64_t length;
        MapAccess access;
    };

    explicit DmaSpace(const system::GuestMemory& memory) : memory_(memory) {}

    // `container`: of devices behind this IOMMU. It gets all translations, now and later, until the
    // Registration goes (which unmaps nothing: the container's end does).
    Result<util::Registration> attach(DmaContainer& container);

    // InvalidArgument: no whole pages, or not all RAM. EEXIST: overlaps another translation.
    Result<> map(const Translation& wanted);
    // May span translations and holes, but not cut a translation (EINVAL).
    Result<> unmap(system::Iova iova, uint64_t length);

    // hw/vfio: the dirty tracker.
    enum class Tracking : uint8_t {
        Off,
        On,       // the containers know what is written
        Nowhere,  // nobody does: what goes may have been written
    };
    void set_tracking(Tracking tracking);
    // Calls `each` for one translation after another, which stays until the call returns.
    void walk(const std::function<void(const Translation&)>& each) const;

 private:
    struct Piece {  // contiguous in host memory
        system::Gpa gpa;
        uint64_t length;
        MapAccess access;
    };
    Result<std::vector<Translation>> split(const Translation& wanted) const;
    Result<> check_free(const Translation& wanted) const;
    MutBytes host_of(const Translation& piece) const;
    Result<> map_everywhere(const Translation& piece);
    Result<> unmap_piece(system::Iova iova, const Piece& piece);
    void rescue(const Piece& piece, const util::Bitmap& written) const;

    const system::GuestMemory& memory_;
    mutable std::mutex mutex_;  // all below; held across calls of containers
    Tracking tracking_ = Tracking::Off;
    std::vector<DmaContainer*> containers_;
    std::map<system::Iova, Piece> pieces_;
};

}  // namespace ferry::vfio
