// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/iommufd.h"

#include <cerrno>

#include "hw/vfio/iommufd-uapi.h"
#include "util/try.h"

namespace ferry::vfio {

using system::Iova;
using system::kPageSize;

namespace {

uint32_t raw(IommufdId id) {
    return static_cast<uint32_t>(id);
}

uint64_t address(const void* at) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number here
    return reinterpret_cast<uintptr_t>(at);
}

Error explain_map(Error error) {
    switch (error.errnum()) {
        case ENOMEM:
            return std::move(error).context(
                "guest RAM is pinned for devices; raise the limit of locked memory (ulimit -l)");
        case EINVAL:
        case EADDRINUSE:
            return std::move(error).context("the IOMMU cannot use or has reserved this address");
        default: return error;
    }
}

}  // namespace

Result<IommufdId> Iommufd::alloc_ioas() {
    uapi::iommufd::IoasAlloc alloc{.size = sizeof(alloc), .flags = 0, .out_ioas_id = 0};
    MIG_CHECK(kernel_.ioctl(fd_, uapi::iommufd::kIoasAlloc, &alloc, "ioctl(IOMMU_IOAS_ALLOC)"));
    return IommufdId(alloc.out_ioas_id);
}

Result<> Iommufd::map(IommufdId ioas, Iova iova, MutBytes host, MapAccess access) {
    uapi::iommufd::IoasMap map{
        .size = sizeof(map),
        .flags = uapi::iommufd::kMapFixedIova | uapi::iommufd::kMapReadable |
                 (access == MapAccess::ReadWrite ? uapi::iommufd::kMapWriteable : 0),
        .ioas_id = raw(ioas),
        .reserved = 0,
        .user_va = address(host.data()),
        .length = host.size(),
        .iova = iova};
    auto done = kernel_.ioctl(fd_, uapi::iommufd::kIoasMap, &map,
                              fmt::format("ioctl(IOMMU_IOAS_MAP, {:#x}+{:#x})", iova, host.size()));
    if (!done) return explain_map(std::move(done).error());
    return {};
}

Result<> Iommufd::unmap(IommufdId ioas, Iova iova, uint64_t length) {
    uapi::iommufd::IoasUnmap unmap{
        .size = sizeof(unmap), .ioas_id = raw(ioas), .iova = iova, .length = length};
    const std::string call = fmt::format("ioctl(IOMMU_IOAS_UNMAP, {:#x}+{:#x})", iova, length);
    MIG_CHECK(kernel_.ioctl(fd_, uapi::iommufd::kIoasUnmap, &unmap, call));
    if (unmap.length == length) return {};
    return make_error(ErrorKind::InvalidState, "{}: {:#x} bytes were mapped", call, unmap.length);
}

Result<> Iommufd::destroy(IommufdId id) {
    uapi::iommufd::Destroy destroy{.size = sizeof(destroy), .id = raw(id)};
    MIG_CHECK(kernel_.ioctl(fd_, uapi::iommufd::kDestroy, &destroy,
                            fmt::format("ioctl(IOMMU_DESTROY, {})", raw(id))));
    return {};
}

Result<bool> Iommufd::tracks_dirty_pages(IommufdId device) {
    uapi::iommufd::HwInfo info{};
    info.size = sizeof(info);
    info.dev_id = raw(device);
    MIG_CHECK(kernel_.ioctl(fd_, uapi::iommufd::kGetHwInfo, &info, "ioctl(IOMMU_GET_HW_INFO)"));
    return (info.out_capabilities & uapi::iommufd::kHwCapDirtyTracking) != 0;
}

Result<IommufdId> Iommufd::alloc_page_table(IommufdId device, IommufdId ioas,
                                            DirtyTracking tracking) {
    uapi::iommufd::HwptAlloc alloc{};
    alloc.size = sizeof(alloc);
    alloc.flags = tracking == DirtyTracking::With ? uapi::iommufd::kHwptDirtyTracking : 0;
    alloc.dev_id = raw(device);
    alloc.pt_id = raw(ioas);
    MIG_CHECK(
        kernel_.ioctl(fd_, uapi::iommufd::kHwptAlloc, &alloc,
                      fmt::format("ioctl(IOMMU_HWPT_ALLOC{})",
                                  tracking == DirtyTracking::With ? ", dirty tracking" : "")));
    return IommufdId(alloc.out_hwpt_id);
}

Result<> Iommufd::set_dirty_tracking(IommufdId page_table, bool on) {
    uapi::iommufd::SetDirtyTracking set{.size = sizeof(set),
                                        .flags = on ? uapi::iommufd::kDirtyTrackingEnable : 0,
                                        .hwpt_id = raw(page_table),
                                        .reserved = 0};
    MIG_CHECK(
        kernel_.ioctl(fd_, uapi::iommufd::kSetDirtyTracking, &set,
                      fmt::format("ioctl(IOMMU_HWPT_SET_DIRTY_TRACKING, {})", on ? "on" : "off")));
    return {};
}

Result<> Iommufd::get_dirty_pages(IommufdId page_table, Iova iova, uint64_t length, Clear clear,
                                  util::Bitmap& pages) {
    // The kernel writes one bit per page, and trusts us that there is room for it.
    if (length == 0 || length % kPageSize != 0 || pages.size() < length / kPageSize) {
        return make_errno(EINVAL, "dirty pages of {:#x}+{:#x} into a bitmap of {}", iova, length,
                          pages.size());
    }
    uapi::iommufd::GetDirtyBitmap get{
        .size = sizeof(get),
        .hwpt_id = raw(page_table),
        .flags = clear == Clear::No ? uapi::iommufd::kDirtyBitmapNoClear : 0,
        .reserved = 0,
        .iova = iova,
        .length = length,
        .page_size = kPageSize,
        .data = address(pages.words().data())};
    MIG_CHECK(kernel_.ioctl(
        fd_, uapi::iommufd::kGetDirtyBitmap, &get,
        fmt::format("ioctl(IOMMU_HWPT_GET_DIRTY_BITMAP, {:#x}+{:#x})", iova, length)));
    return {};
}

Result<IommufdId> Iommufd::bind(BorrowedFd device) {
    uapi::BindIommufd bind{.argsz = sizeof(bind), .flags = 0, .iommufd = fd_.raw(), .out_devid = 0};
    MIG_CHECK(
        kernel_.ioctl(device, uapi::kDeviceBindIommufd, &bind, "ioctl(VFIO_DEVICE_BIND_IOMMUFD)"));
    return IommufdId(bind.out_devid);
}

Result<> Iommufd::attach(BorrowedFd device, IommufdId page_table_or_ioas) {
    uapi::AttachPt attach{.argsz = sizeof(attach), .flags = 0, .pt_id = raw(page_table_or_ioas)};
    MIG_CHECK(kernel_.ioctl(
        device, uapi::kDeviceAttachPt, &attach,
        fmt::format("ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, {})", raw(page_table_or_ioas))));
    return {};
}

Result<> Iommufd::detach(BorrowedFd device) {
    uapi::DetachPt detach{.argsz = sizeof(detach), .flags = 0};
    MIG_CHECK(kernel_.ioctl(device, uapi::kDeviceDetachPt, &detach,
                            "ioctl(VFIO_DEVICE_DETACH_IOMMUFD_PT)"));
    return {};
}

}  // namespace ferry::vfio
