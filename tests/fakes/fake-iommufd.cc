// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/fake-iommufd.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hw/vfio/iommufd-uapi.h"
#include "tests/fakes/argument.h"
#include "util/result.h"

namespace ferry::test {

namespace iommufd = vfio::uapi::iommufd;

namespace {

constexpr uint64_t kIommuPage = 4096;

bool whole_pages(uint64_t iova, uint64_t length) {
    return length != 0 && (iova | length) % kIommuPage == 0 && length - 1 <= UINT64_MAX - iova;
}

}  // namespace

uint64_t FakeIommufd::mapped_bytes() const {
    uint64_t sum = 0;
    for (const auto& [id, space] : spaces_) {
        for (const auto& [iova, mapping] : space.mappings) sum += mapping.length;
    }
    return sum;
}

bool FakeIommufd::tracking() const {
    return std::ranges::any_of(page_tables_, [](const auto& one) { return one.second.tracking; });
}

FakeIommufd::Device* FakeIommufd::find(const FakeVfioDevice& device) {
    for (auto& [id, one] : devices_) {
        if (one.device == &device) return &one;
    }
    return nullptr;
}

bool FakeIommufd::attached(const FakeVfioDevice& device) const {
    return std::ranges::any_of(devices_, [&](const auto& one) {
        return one.second.device == &device && one.second.attached_to != 0;
    });
}

const FakeIommufd::Iommu* FakeIommufd::iommu_of(const FakeVfioDevice& device) const {
    const auto at = iommus.find(device.name);
    return at == iommus.end() ? nullptr : &at->second;
}

SysValue FakeIommufd::ioctl(unsigned long request, void* argument) {
    if (const auto wanted = errnums.find(request); wanted != errnums.end()) return -wanted->second;
    switch (request) {
        case iommufd::kDestroy: return destroy(argument);
        case iommufd::kIoasAlloc: return alloc_space(argument);
        case iommufd::kIoasMap: return map(argument);
        case iommufd::kIoasUnmap: return unmap(argument);
        case iommufd::kHwptAlloc: return alloc_page_table(argument);
        case iommufd::kGetHwInfo: return hw_info(argument);
        case iommufd::kSetDirtyTracking: return set_tracking(argument);
        case iommufd::kGetDirtyBitmap: return get_dirty(argument);
        default: return -ENOTTY;
    }
}

SysValue FakeIommufd::alloc_space(void* argument) {
    auto alloc = load<iommufd::IoasAlloc>(argument);
    if (alloc.size < sizeof(alloc)) return -EINVAL;
    if (alloc.flags != 0) return -EOPNOTSUPP;
    alloc.out_ioas_id = next_id_++;
    spaces_[alloc.out_ioas_id];
    store(argument, alloc);
    return 0;
}

SysValue FakeIommufd::map(const void* argument) {
    const auto map = load<iommufd::IoasMap>(argument);
    if (map.size < sizeof(map)) return -EINVAL;
    constexpr uint32_t kAccess = iommufd::kMapReadable | iommufd::kMapWriteable;
    if (map.reserved != 0 || (map.flags & ~(kAccess | iommufd::kMapFixedIova)) != 0) {
        return -EOPNOTSUPP;
    }
    if ((map.flags & kAccess) == 0 || (map.flags & iommufd::kMapFixedIova) == 0) return -EINVAL;
    const auto space = spaces_.find(map.ioas_id);
    if (space == spaces_.end()) return -ENOENT;
    if (!whole_pages(map.iova, map.length) || map.user_va % kIommuPage != 0) return -EINVAL;
    for (const auto& [iova, other] : space->second.mappings) {
        if (map.iova <= iova + (other.length - 1) && iova <= map.iova + (map.length - 1)) {
            return -EEXIST;
        }
    }
    if (mapped_bytes() + map.length > map_limit_bytes) return -ENOMEM;
    space->second.mappings[map.iova] = {map.user_va, map.length,
                                        (map.flags & iommufd::kMapWriteable) != 0};
    log_.push_back(fmt::format("ioas map {:#x}+{:#x}", map.iova, map.length));
    return 0;
}

SysValue FakeIommufd::unmap(void* argument) {
    auto unmap = load<iommufd::IoasUnmap>(argument);
    if (unmap.size < sizeof(unmap)) return -EINVAL;
    const auto space = spaces_.find(unmap.ioas_id);
    if (space == spaces_.end()) return -ENOENT;
    if (!whole_pages(unmap.iova, unmap.length)) return -EINVAL;
    uint64_t removed = 0;
    for (const auto& [iova, mapping] : space->second.mappings) {
        const bool touches =
            iova <= unmap.iova + (unmap.length - 1) && unmap.iova <= iova + (mapping.length - 1);
        if (!touches) continue;
        if (iova < unmap.iova || mapping.length > unmap.length - (iova - unmap.iova)) {
            return -ENOENT;  // cut
        }
        removed += mapping.length;
    }
    if (removed == 0) return -ENOENT;
    const auto inside = [&](uint64_t iova) {
        return iova >= unmap.iova && iova - unmap.iova < unmap.length;
    };
    std::erase_if(space->second.mappings, [&](const auto& one) { return inside(one.first); });
    for (auto& [id, page_table] : page_tables_) {
        if (page_table.space == unmap.ioas_id) std::erase_if(page_table.written, inside);
    }
    log_.push_back(fmt::format("ioas unmap {:#x}+{:#x}", unmap.iova, unmap.length));
    unmap.length = removed;
    store(argument, unmap);
    return 0;
}

bool FakeIommufd::in_use(uint32_t id) const {
    return std::ranges::any_of(page_tables_,
                               [id](const auto& one) { return one.second.space == id; }) ||
           std::ranges::any_of(devices_,
                               [id](const auto& one) { return one.second.attached_to == id; });
}

SysValue FakeIommufd::destroy(const void* argument) {
    const auto destroy = load<iommufd::Destroy>(argument);
    if (destroy.size < sizeof(destroy)) return -EINVAL;
    if (in_use(destroy.id)) return -EBUSY;
    if (spaces_.erase(destroy.id) + page_tables_.erase(destroy.id) == 0) return -ENOENT;
    return 0;
}

SysValue FakeIommufd::hw_info(void* argument) {
    auto info = load<iommufd::HwInfo>(argument);
    if (info.size < sizeof(info)) return -EINVAL;
    if (info.flags != 0 || info.reserved[0] != 0) return -EOPNOTSUPP;
    const auto device = devices_.find(info.dev_id);
    if (device == devices_.end()) return -ENOENT;
    const Iommu* iommu = iommu_of(*device->second.device);
    if (iommu == nullptr) return -ENOENT;  // only an access, no device
    info.out_capabilities =
        iommu->tracks && iommu->says_it_tracks ? iommufd::kHwCapDirtyTracking : 0;
    store(argument, info);
    return 0;
}

SysValue FakeIommufd::alloc_page_table(void* argument) {
    auto alloc = load<iommufd::HwptAlloc>(argument);
    if (alloc.size < sizeof(alloc)) return -EINVAL;
    if ((alloc.flags & ~iommufd::kHwptDirtyTracking) != 0 || alloc.reserved != 0 ||
        alloc.reserved2 != 0 || alloc.data_type != 0 || alloc.data_len != 0) {
        return -EOPNOTSUPP;
    }
    const auto device = devices_.find(alloc.dev_id);
    if (device == devices_.end() || !spaces_.contains(alloc.pt_id)) return -ENOENT;
    const Iommu* iommu = iommu_of(*device->second.device);
    if (iommu == nullptr) return -ENOENT;
    const bool track = (alloc.flags & iommufd::kHwptDirtyTracking) != 0;
    if (track && !iommu->tracks) return -EOPNOTSUPP;
    alloc.out_hwpt_id = next_id_++;
    page_tables_[alloc.out_hwpt_id] = {
        .space = alloc.pt_id, .kind = iommu->kind, .can_track = track, .written = {}};
    store(argument, alloc);
    return 0;
}

SysValue FakeIommufd::set_tracking(const void* argument) {
    const auto set = load<iommufd::SetDirtyTracking>(argument);
    if (set.size < sizeof(set)) return -EINVAL;
    if ((set.flags & ~iommufd::kDirtyTrackingEnable) != 0 || set.reserved != 0) return -EOPNOTSUPP;
    const auto found = page_tables_.find(set.hwpt_id);
    if (found == page_tables_.end()) return -ENOENT;
    if (!found->second.can_track) return -EOPNOTSUPP;
    found->second.tracking = (set.flags & iommufd::kDirtyTrackingEnable) != 0;
    found->second.written.clear();
    return 0;
}

// Like the kernel, answers "nothing" to questions that make no sense: holes, no tracking.
SysValue FakeIommufd::get_dirty(const void* argument) {
    const auto get = load<iommufd::GetDirtyBitmap>(argument);
    if (get.size < sizeof(get)) return -EINVAL;
    if ((get.flags & ~iommufd::kDirtyBitmapNoClear) != 0 || get.reserved != 0) return -EOPNOTSUPP;
    const auto found = page_tables_.find(get.hwpt_id);
    if (found == page_tables_.end()) return -ENOENT;
    if (get.page_size != kIommuPage || !whole_pages(get.iova, get.length)) return -EINVAL;
    PageTable& page_table = found->second;
    const bool clear = (get.flags & iommufd::kDirtyBitmapNoClear) == 0;
    dirty_queries.push_back(
        fmt::format("{:#x}+{:#x}{}", get.iova, get.length, clear ? "" : " no-clear"));
    if (!page_table.tracking) faults_.emplace_back("dirty query without tracking");
    auto* words = reinterpret_cast<uint64_t*>(get.data);
    std::erase_if(page_table.written, [&](uint64_t iova) {
        if (iova < get.iova || iova - get.iova >= get.length) return false;
        const uint64_t bit = (iova - get.iova) / kIommuPage;
        words[bit / 64] |= uint64_t{1} << (bit % 64);
        return clear;
    });
    return 0;
}

SysValue FakeIommufd::bind(FakeVfioDevice& device, uint32_t& id) {
    if (find(device) != nullptr) return -EINVAL;
    id = next_id_++;
    devices_[id] = {.device = &device};
    return 0;
}

SysValue FakeIommufd::attach(const FakeVfioDevice& device, uint32_t& to) {
    Device* bound = find(device);
    if (bound == nullptr) return -EINVAL;
    const Iommu* iommu = iommu_of(device);
    const auto page_table = page_tables_.find(to);
    if (page_table == page_tables_.end() && !spaces_.contains(to)) return -ENOENT;
    if (page_table != page_tables_.end() &&
        (iommu == nullptr || page_table->second.kind != iommu->kind ||
         (page_table->second.can_track && !iommu->tracks))) {
        return -EINVAL;
    }
    bound->attached_to = to;
    log_.push_back(fmt::format("attach {}", device.name));
    return 0;
}

SysValue FakeIommufd::detach(const FakeVfioDevice& device) {
    Device* bound = find(device);
    if (bound == nullptr) return -EINVAL;
    bound->attached_to = 0;
    log_.push_back(fmt::format("detach {}", device.name));
    return 0;
}

void FakeIommufd::device_closed(const FakeVfioDevice& device) {
    std::erase_if(devices_, [&](const auto& one) { return one.second.device == &device; });
}

void FakeIommufd::closed() {
    spaces_.clear();
    page_tables_.clear();
    devices_.clear();
}

bool FakeIommufd::dma_write(const FakeVfioDevice& device, uint64_t iova, std::byte value) {
    Device* bound = find(device);
    if (bound == nullptr || bound->attached_to == 0) return false;
    const auto page_table = page_tables_.find(bound->attached_to);
    const uint32_t space_id =
        page_table == page_tables_.end() ? bound->attached_to : page_table->second.space;
    for (const auto& [at, mapping] : spaces_.at(space_id).mappings) {
        if (iova < at || iova - at >= mapping.length) continue;
        if (!mapping.writable) return false;
        std::memset(reinterpret_cast<void*>(mapping.user_va + (iova - at)), static_cast<int>(value),
                    kIommuPage);
        if (page_table != page_tables_.end() && page_table->second.tracking) {
            page_table->second.written.insert(iova);
        }
        return true;
    }
    return false;
}

}  // namespace ferry::test
