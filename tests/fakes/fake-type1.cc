// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/fake-type1.h"

#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hw/vfio/uapi.h"
#include "tests/fakes/argument.h"
#include "util/result.h"

namespace ferry::test {

namespace uapi = vfio::uapi;

namespace {

constexpr uint64_t kType1Page = 4096;

bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
    return a <= b + (b_length - 1) && b <= a + (a_length - 1);
}

bool row_of_pages(uint64_t iova, uint64_t size) {
    return size != 0 && (iova | size) % kType1Page == 0 && size - 1 <= UINT64_MAX - iova;
}

}  // namespace

uint64_t FakeType1::mapped_bytes() const {
    uint64_t sum = 0;
    for (const auto& [iova, mapping] : mappings_) sum += mapping.length;
    return sum;
}

void FakeType1::clear() {
    mappings_.clear();
    written_.clear();
    tracking_ = false;
}

SysValue FakeType1::ioctl(unsigned long request, void* argument) {
    switch (request) {
        case VFIO_IOMMU_GET_INFO: return get_info(argument);
        case VFIO_IOMMU_MAP_DMA: return map_dma(argument);
        case VFIO_IOMMU_UNMAP_DMA: return unmap_dma(argument);
        case VFIO_IOMMU_DIRTY_PAGES: return dirty_pages(argument);
        default: return -ENOTTY;
    }
}

SysValue FakeType1::get_info(void* argument) const {
    auto info = load<uapi::Type1Info>(argument);
    constexpr uint32_t kMandatory = 16;
    if (info.argsz < kMandatory) return -EINVAL;
    constexpr uint32_t kFixed = sizeof(info), kRangeBytes = 32;
    const uint32_t range_at = kFixed;
    const uint32_t migration_at = kFixed + (physical ? kRangeBytes : 0);
    const uint32_t end =
        migration_at + (migration_capability ? uint32_t{sizeof(uapi::Type1MigrationCap)} : 0);
    const uint32_t room = info.argsz;
    info.flags = VFIO_IOMMU_INFO_PGSIZES | (end > sizeof(info) ? VFIO_IOMMU_INFO_CAPS : 0u);
    info.iova_pgsizes = dirty_page_sizes;
    info.cap_offset = 0;
    if (end > sizeof(info) && room < end) {
        info.argsz = end;
    } else if (end > sizeof(info)) {
        auto* bytes = static_cast<std::byte*>(argument);
        info.cap_offset = sizeof(info);
        const uint32_t after_range = migration_capability ? migration_at : 0;
        if (physical) {
            store(bytes + range_at, uapi::CapHeader{uapi::kType1CapIovaRange, 1, after_range});
        }
        if (migration_capability) {
            store(bytes + migration_at,
                  uapi::Type1MigrationCap{{uapi::kType1CapMigration, 1, stray_capability},
                                          0,
                                          0,
                                          dirty_page_sizes,
                                          max_bitmap_bytes});
        }
    }
    std::memcpy(argument, &info, std::min<size_t>(room, sizeof(info)));
    return 0;
}

SysValue FakeType1::map_dma(const void* argument) {
    const auto map = load<vfio_iommu_type1_dma_map>(argument);
    constexpr uint32_t kKnown = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    if (map.argsz < sizeof(map) || map.flags == 0 || (map.flags & ~kKnown) != 0) return -EINVAL;
    if (!row_of_pages(map.iova, map.size) || map.vaddr % kType1Page != 0) return -EINVAL;
    for (const auto& [iova, other] : mappings_) {
        if (overlap(iova, other.length, map.iova, map.size)) return -EEXIST;
    }
    if (map_limit_bytes && mapped_bytes() + map.size > *map_limit_bytes) return -ENOMEM;
    mappings_.emplace(map.iova,
                      Mapping{map.vaddr, map.size, (map.flags & VFIO_DMA_MAP_FLAG_WRITE) != 0});
    log_.push_back(fmt::format("map {:#x}+{:#x}", map.iova, map.size));
    return 0;
}

bool FakeType1::cuts_a_mapping(uint64_t iova, uint64_t size) const {
    return std::ranges::any_of(mappings_, [&](const auto& entry) {
        const auto& [at, mapping] = entry;
        return overlap(at, mapping.length, iova, size) &&
               (at < iova || mapping.length > size - (at - iova));
    });
}

SysValue FakeType1::check_bitmap(uint64_t iova, uint64_t size, uint64_t page_size,
                                 uint64_t bitmap_bytes) const {
    if (page_size != (dirty_page_sizes & (~dirty_page_sizes + 1))) return -EINVAL;
    const uint64_t needed = (size / page_size + 63) / 64 * 8;
    if (bitmap_bytes < needed || bitmap_bytes > max_bitmap_bytes) return -EINVAL;
    return cuts_a_mapping(iova, size) ? -EINVAL : 0;
}

// Overwrites the words that it is about, as the kernel does.
void FakeType1::report(uint64_t iova, uint64_t size, uint64_t* words) {
    std::fill_n(words, (size / kType1Page + 63) / 64, 0);
    const auto set = [&](uint64_t at) {
        const uint64_t page = (at - iova) / kType1Page;
        words[page / 64] |= uint64_t{1} << (page % 64);
    };
    for (const auto& [at, mapping] : mappings_) {
        if (!physical || !overlap(at, mapping.length, iova, size)) continue;
        for (uint64_t done = 0; done < mapping.length; done += kType1Page) set(at + done);
    }
    std::erase_if(written_, [&](uint64_t at) {
        const bool inside = at >= iova && at - iova < size;
        if (inside) set(at);
        return inside;
    });
}

SysValue FakeType1::unmap_dma(void* argument) {
    constexpr size_t kSize = offsetof(vfio_iommu_type1_dma_unmap, data);
    auto unmap = load<uapi::DmaUnmap>(argument);
    const bool with_bitmap = (unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) != 0;
    if (unmap.argsz < kSize || (unmap.flags & ~VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) != 0 ||
        !row_of_pages(unmap.iova, unmap.size)) {
        return -EINVAL;
    }
    if (with_bitmap) {
        if (unmap.argsz < sizeof(uapi::DmaUnmapDirty) || !tracking_) return -EINVAL;
        if (unmap_bitmap_errnum != 0) return -unmap_bitmap_errnum;
        const auto bitmap = load<uapi::DmaUnmapDirty>(argument).bitmap;
        const SysValue verdict = check_bitmap(unmap.iova, unmap.size, bitmap.pgsize, bitmap.size);
        if (verdict != 0) return verdict;
        report(unmap.iova, unmap.size, reinterpret_cast<uint64_t*>(bitmap.data));
    }
    if (cuts_a_mapping(unmap.iova, unmap.size)) return -EINVAL;
    uint64_t removed = 0;
    std::erase_if(mappings_, [&](const auto& entry) {
        if (entry.first < unmap.iova || entry.first - unmap.iova >= unmap.size) return false;
        removed += entry.second.length;
        return true;
    });
    std::erase_if(written_,
                  [&](uint64_t at) { return at >= unmap.iova && at - unmap.iova < unmap.size; });
    log_.push_back(fmt::format("unmap {:#x}+{:#x}{}", unmap.iova, unmap.size,
                               with_bitmap ? " with bitmap" : ""));
    unmap.size = removed;
    std::memcpy(argument, &unmap, kSize);
    return 0;
}

SysValue FakeType1::dirty_pages(const void* argument) {
    const auto request = load<uapi::DirtyPages>(argument);
    if (request.argsz < sizeof(request)) return -EINVAL;
    switch (request.flags) {
        case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
            if (start_errnum != 0) return -start_errnum;
            if (!tracking_) written_.clear();
            tracking_ = true;
            log_.emplace_back("dirty tracking on");
            return 0;
        case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
            tracking_ = false;
            log_.emplace_back("dirty tracking off");
            return 0;
        case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: return get_bitmap(argument);
        default: return -EINVAL;
    }
}

SysValue FakeType1::get_bitmap(const void* argument) {
    const auto get = load<uapi::DirtyPagesGet>(argument);
    ++bitmap_queries;
    if (get.header.argsz < sizeof(get) || !tracking_ || !row_of_pages(get.iova, get.size)) {
        return -EINVAL;
    }
    if (bitmap_errnum != 0) return -bitmap_errnum;
    const SysValue verdict = check_bitmap(get.iova, get.size, get.bitmap.pgsize, get.bitmap.size);
    if (verdict != 0) return verdict;
    report(get.iova, get.size, reinterpret_cast<uint64_t*>(get.bitmap.data));
    return 0;
}

bool FakeType1::dma_write(uint64_t iova, std::byte value) {
    for (const auto& [at, mapping] : mappings_) {
        if (iova < at || iova - at >= mapping.length) continue;
        if (!mapping.writable) return false;
        std::memset(reinterpret_cast<void*>(mapping.vaddr + (iova - at)), static_cast<int>(value),
                    kType1Page);
        if (tracking_) written_.insert(iova);
        return true;
    }
    return false;
}

}  // namespace ferry::test
