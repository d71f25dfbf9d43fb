// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/type1-container.h"

#include <cerrno>

#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

constexpr std::string_view kContainerPath = "/dev/vfio/vfio";

Error explain_container(Error error) {
    switch (error.errnum()) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return std::move(error).context(
                "this host has no VFIO container; load the driver (modprobe vfio-pci)");
        case EACCES:
        case EPERM:
            return std::move(error).context(fmt::format(
                "no permission; the user needs read and write access to {}", kContainerPath));
        default: return error;
    }
}

Error explain_group(Error error, unsigned number) {
    switch (error.errnum()) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return std::move(error).context(fmt::format(
                "no device of group {} is bound to a VFIO driver; bind the device to vfio-pci "
                "or to its own VFIO driver",
                number));
        case EBUSY:
            return std::move(error).context(fmt::format(
                "group {} is in use by another process; a group belongs to one VM", number));
        case EACCES:
        case EPERM:
            return std::move(error).context(fmt::format(
                "no permission; the user needs read and write access to /dev/vfio/{}", number));
        default: return error;
    }
}

Error explain_attach(Error error, unsigned number) {
    switch (error.errnum()) {
        case EBUSY:
        case EPERM:
            return std::move(error).context(fmt::format(
                "group {} is owned by somebody else; unbind the group's other drivers", number));
        case EINVAL:
            return std::move(error).context(fmt::format(
                "group {} does not fit: it is in a container already, or its IOMMU reserves "
                "addresses at which the VM has memory",
                number));
        default: return error;
    }
}

Error explain_iommu(Error error) {
    switch (error.errnum()) {
        case EPERM:
            return std::move(error).context(
                "this host does not remap interrupts, so a device could forge them; if you trust "
                "it: modprobe vfio_iommu_type1 allow_unsafe_interrupts=1");
        case ENODEV: return std::move(error).context("no type1 driver; modprobe vfio_iommu_type1");
        default: return error;
    }
}

Error explain_device(Error error, unsigned number, const std::string& name) {
    switch (error.errnum()) {
        case ENODEV:
            return std::move(error).context(
                fmt::format("group {} has no device {} under a VFIO driver; bind it to vfio-pci or "
                            "to its own VFIO driver",
                            number, name));
        case EBUSY: return std::move(error).context(fmt::format("device {} is in use", name));
        default: return error;
    }
}

bool is_page_aligned(uint64_t value) {
    return value % system::kPageSize == 0;
}

Result<> check_alignment(system::Iova iova, uint64_t length) {
    if (length != 0 && is_page_aligned(iova) && is_page_aligned(length) &&
        length - 1 <= UINT64_MAX - iova) {
        return {};
    }
    return make_error(ErrorKind::InvalidArgument, "DMA range {:#x}+{:#x} is no row of pages", iova,
                      length);
}

}  // namespace

Result<VfioGroup> VfioGroup::open(Kernel& kernel, unsigned number) {
    auto file = KernelFile::open(kernel, fmt::format("/dev/vfio/{}", number));
    if (!file) return explain_group(std::move(file).error(), number);
    VfioGroup group(kernel, std::move(*file), number);
    MIG_CHECK(group.check_viable());
    return group;
}

Result<> VfioGroup::check_viable() {
    uapi::GroupStatus status{};
    status.argsz = sizeof(status);
    MIG_CHECK(kernel_->ioctl(fd(), uapi::kGroupGetStatus, &status,
                             fmt::format("ioctl(VFIO_GROUP_GET_STATUS, group {})", number_)));
    if ((status.flags & uapi::kGroupViable) != 0) return {};
    return make_error(
        ErrorKind::InvalidState,
        "group {0} is not viable: another of its devices has a driver of the host; "
        "bind all of /sys/kernel/iommu_groups/{0}/devices to vfio-pci, or unbind them",
        number_);
}

Result<KernelFile> VfioGroup::open_device(const std::string& name) {
    std::string argument = name;  // the call takes a pointer to non-const
    auto fd_value = kernel_->ioctl(fd(), uapi::kGroupGetDeviceFd, argument.data(),
                                   fmt::format("ioctl(VFIO_GROUP_GET_DEVICE_FD, {})", name));
    if (!fd_value) return explain_device(std::move(fd_value).error(), number_, name);
    return KernelFile(*kernel_, BorrowedFd(*fd_value));
}

Result<std::unique_ptr<Type1Container>> Type1Container::open(Kernel& kernel) {
    auto file = KernelFile::open(kernel, std::string(kContainerPath));
    if (!file) return explain_container(std::move(file).error());
    MIG_TRY(const int version,
            kernel.ioctl_value(file->fd(), uapi::kGetApiVersion, 0, "ioctl(VFIO_GET_API_VERSION)"));
    if (version != uapi::kApiVersion) {
        return make_error(ErrorKind::Unsupported, "the kernel's VFIO has version {}, not {}",
                          version, uapi::kApiVersion);
    }
    MIG_TRY(const int has_type1v2,
            kernel.ioctl_value(file->fd(), uapi::kCheckExtension, uapi::kType1v2Iommu,
                               "ioctl(VFIO_CHECK_EXTENSION, type1v2)"));
    if (has_type1v2 == 0) {
        return make_error(ErrorKind::Unsupported,
                          "the kernel has no type1v2 IOMMU driver; modprobe vfio_iommu_type1");
    }
    return std::unique_ptr<Type1Container>(new Type1Container(kernel, std::move(*file)));
}

Result<> Type1Container::attach(VfioGroup& group) {
    int32_t container = file_.fd().raw();
    auto set =
        kernel_.ioctl(group.fd(), uapi::kGroupSetContainer, &container,
                      fmt::format("ioctl(VFIO_GROUP_SET_CONTAINER, group {})", group.number()));
    if (!set) return explain_attach(std::move(set).error(), group.number());
    if (has_iommu_) return learn_info();
    auto chosen = kernel_.ioctl_value(file_.fd(), uapi::kSetIommu, uapi::kType1v2Iommu,
                                      "ioctl(VFIO_SET_IOMMU, type1v2)");
    if (!chosen) return explain_iommu(std::move(chosen).error());
    has_iommu_ = true;
    return learn_info();
}

Result<> Type1Container::learn_info() {
    MIG_TRY(const Type1Info info, query_type1_info(kernel_, file_.fd()));
    log_.set_info(info);
    return {};
}

Result<> Type1Container::dma_map(system::Iova iova, MutBytes host, MapAccess access) {
    MIG_CHECK(check_alignment(iova, host.size()));
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number here
    MIG_CHECK(check_alignment(reinterpret_cast<uintptr_t>(host.data()), host.size()),
              "host memory");
    return log_.map(iova, host, access);
}

Result<> Type1Container::dma_unmap(system::Iova iova, uint64_t length) {
    MIG_CHECK(check_alignment(iova, length));
    return log_.unmap(iova, length, nullptr);
}

Result<> Type1Container::dma_unmap_written(system::Iova iova, uint64_t length,
                                           util::Bitmap& written) {
    MIG_CHECK(check_alignment(iova, length));
    return log_.unmap(iova, length, &written);
}

}  // namespace ferry::vfio
