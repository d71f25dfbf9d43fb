// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/kernel-regions.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hw/vfio/capability-chain.h"
#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

template <typename Struct>
Struct load_struct(ConstBytes at) {
    Struct value;
    std::memcpy(&value, at.data(), sizeof(value));
    return value;
}

template <typename... Args>
Error bad_chain(fmt::format_string<Args...> text, Args&&... args) {
    return make_error(ErrorKind::Protocol, "capability chain of the region info: {}",
                      fmt::format(text, std::forward<Args>(args)...));
}

// `payload` is everything from the capability's header to the next one or the end.
Result<std::vector<RegionInfo::Area>> parse_areas(ConstBytes capability, uint64_t region_size) {
    if (capability.size() < sizeof(uapi::SparseMmapCap)) {
        return bad_chain("sparse mmap areas take {} bytes, {} are there",
                         sizeof(uapi::SparseMmapCap), capability.size());
    }
    const auto header = load_struct<uapi::SparseMmapCap>(capability);
    const ConstBytes entries = capability.subspan(sizeof(uapi::SparseMmapCap));
    if (header.nr_areas > entries.size() / sizeof(uapi::SparseMmapArea)) {
        return bad_chain("{} sparse mmap areas do not fit into {} bytes", header.nr_areas,
                         entries.size());
    }
    std::vector<RegionInfo::Area> areas;
    for (uint32_t i = 0; i < header.nr_areas; ++i) {
        const auto area = load_struct<uapi::SparseMmapArea>(
            entries.subspan(i * sizeof(uapi::SparseMmapArea), sizeof(uapi::SparseMmapArea)));
        if (area.size > region_size || area.offset > region_size - area.size) {
            return bad_chain("area {:#x}+{:#x} leaves the region of {:#x} bytes", area.offset,
                             area.size, region_size);
        }
        if (area.size != 0) areas.push_back({area.offset, area.size});
    }
    return areas;
}

struct RawRegionInfo {
    std::vector<std::byte> bytes;  // the struct and, if there is one, the capability chain
    uapi::RegionInfo fixed{};
};

// Asks with a buffer for the fixed part, and again with what the kernel says that it needs.
Result<RawRegionInfo> read_region_info(Kernel& kernel, BorrowedFd device, uint32_t index) {
    constexpr int kAttempts = 3;  // the chain may have grown in between, but not for ever
    uint32_t size = sizeof(uapi::RegionInfo);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        RawRegionInfo out;
        out.bytes.resize(size);
        out.fixed = {
            .argsz = size, .flags = 0, .index = index, .cap_offset = 0, .size = 0, .offset = 0};
        std::memcpy(out.bytes.data(), &out.fixed, sizeof(out.fixed));
        MIG_CHECK(
            kernel.ioctl(device, uapi::kDeviceGetRegionInfo, out.bytes.data(),
                         fmt::format("ioctl(VFIO_DEVICE_GET_REGION_INFO, region {})", index)));
        out.fixed = load_struct<uapi::RegionInfo>(out.bytes);
        if ((out.fixed.flags & uapi::kRegionCaps) == 0 || out.fixed.argsz <= size) return out;
        if (out.fixed.argsz > kMaxRegionInfoBytes) {
            return make_error(ErrorKind::LimitExceeded,
                              "info of region {} wants {} bytes, the limit is {}", index,
                              out.fixed.argsz, kMaxRegionInfoBytes);
        }
        size = out.fixed.argsz;
    }
    return make_error(ErrorKind::Protocol, "info of region {} keeps growing", index);
}

Result<KernelRegion> query_region(Kernel& kernel, BorrowedFd device, uint32_t index) {
    auto raw = read_region_info(kernel, device, index);
    if (!raw) {
        // An index inside the device's count that it does not implement: VGA, for one.
        if (raw.error().errnum() == EINVAL) return KernelRegion{};
        return std::move(raw).error();
    }
    const uapi::RegionInfo& fixed = raw->fixed;
    KernelRegion region;
    region.file_offset = fixed.offset;
    region.info.size = fixed.size;
    region.info.readable = (fixed.flags & uapi::kRegionRead) != 0;
    region.info.writable = (fixed.flags & uapi::kRegionWrite) != 0;
    region.info.mappable = (fixed.flags & uapi::kRegionMmap) != 0;
    constexpr auto kMaxFileOffset = static_cast<uint64_t>(INT64_MAX);
    if (fixed.offset > kMaxFileOffset || fixed.size > kMaxFileOffset - fixed.offset) {
        return make_error(ErrorKind::Protocol, "region {} lies at {:#x}+{:#x} of the device's file",
                          index, fixed.offset, fixed.size);
    }
    if (region.info.mappable) {
        MIG_TRY(region.info.mmap_areas, parse_sparse_areas(raw->bytes), "region {}", index);
    }
    return region;
}

}  // namespace

Result<DeviceInfo> query_device_info(Kernel& kernel, BorrowedFd device) {
    uapi::DeviceInfo raw{};
    raw.argsz = sizeof(raw);
    MIG_CHECK(kernel.ioctl(device, uapi::kDeviceGetInfo, &raw, "ioctl(VFIO_DEVICE_GET_INFO)"));
    if (raw.num_regions > kMaxRegions || raw.num_irqs > kMaxIrqIndexes) {
        return make_error(ErrorKind::LimitExceeded,
                          "the device claims {} regions and {} interrupt indexes; "
                          "the limits are {} and {}",
                          raw.num_regions, raw.num_irqs, kMaxRegions, kMaxIrqIndexes);
    }
    return DeviceInfo{.can_reset = (raw.flags & uapi::kDeviceCanReset) != 0,
                      .is_pci = (raw.flags & uapi::kDeviceIsPci) != 0,
                      .num_regions = raw.num_regions,
                      .num_irqs = raw.num_irqs};
}

Result<std::vector<KernelRegion>> query_regions(Kernel& kernel, BorrowedFd device, uint32_t count) {
    std::vector<KernelRegion> regions(std::min(count, kMaxRegions));
    for (uint32_t i = 0; i < regions.size(); ++i) {
        MIG_TRY(regions[i], query_region(kernel, device, i));
    }
    return regions;
}

Result<std::vector<RegionInfo::Area>> parse_sparse_areas(ConstBytes info) {
    if (info.size() < sizeof(uapi::RegionInfo)) return bad_chain("{} bytes", info.size());
    const auto fixed = load_struct<uapi::RegionInfo>(info);
    std::vector<RegionInfo::Area> whole = {{0, fixed.size}};
    if ((fixed.flags & uapi::kRegionCaps) == 0 || fixed.cap_offset == 0) return whole;

    MIG_TRY(
        const std::vector<Capability> chain,
        parse_capability_chain(info, sizeof(uapi::RegionInfo), fixed.cap_offset, "region info"));
    const auto sparse = std::ranges::find(chain, uapi::kRegionCapSparseMmap, &Capability::id);
    if (sparse == chain.end()) return whole;
    return parse_areas(sparse->bytes, fixed.size);
}

}  // namespace ferry::vfio
