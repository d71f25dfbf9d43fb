// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/container-iommufd.h"

#include <algorithm>
#include <cerrno>

#include "hw/vfio/device-io-kernel.h"
#include "hw/vfio/device-place.h"
#include "hw/vfio/iommufd-container.h"
#include "hw/vfio/iommufd.h"
#include "util/registration.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

constexpr std::string_view kIommufdPath = "/dev/iommu";

Error explain_iommufd(Error error) {
    switch (error.errnum()) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return std::move(error).context(
                "this host has no iommufd; load it (modprobe iommufd), or leave iommufd= away to "
                "use the device's group");
        case EACCES:
        case EPERM:
            return std::move(error).context(fmt::format(
                "no permission; the user needs read and write access to {}", kIommufdPath));
        default: return error;
    }
}

Error explain_node(Error error) {
    switch (error.errnum()) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return std::move(error).context(
                "the device has no node of its own; bind it to vfio-pci or to its own VFIO "
                "driver, on a kernel with CONFIG_VFIO_DEVICE_CDEV, or leave iommufd= away");
        case EACCES:
        case EPERM:
            return std::move(error).context(
                "no permission; the user needs read and write access to the device's node");
        default: return error;
    }
}

Error explain_bind(Error error) {
    switch (error.errnum()) {
        case EBUSY:
            return std::move(error).context(
                "the device's group is open; a device is used by its node or by its group, by one "
                "process");
        case EINVAL: return std::move(error).context("the device is in use, or bound already");
        case EBADFD: return std::move(error).context("the given descriptor is no iommufd");
        case ENOTTY:
            return std::move(error).context("the given descriptor is no VFIO device's node");
        default: return error;
    }
}

Result<KernelFile> open_node(Kernel& kernel, std::string_view host) {
    MIG_TRY(const std::string path, sysfs_device_path(host));
    auto names = kernel.list(path + "/vfio-dev");
    if (!names) return explain_node(std::move(names).error());
    const auto name = std::ranges::find_if(
        *names, [](const std::string& one) { return one.starts_with("vfio"); });
    if (name == names->end()) {
        return make_error(ErrorKind::Protocol, "{}/vfio-dev names no device", path);
    }
    auto node = KernelFile::open(kernel, "/dev/vfio/devices/" + *name);
    if (!node) return explain_node(std::move(node).error());
    return node;
}

}  // namespace

// What there is from the first device to the last.
struct IommufdHost::Open {
    Open(Kernel& kernel, KernelFile file, BorrowedFd fd)
        : opened(std::move(file)), iommufd(kernel, fd) {}

    KernelFile opened;  // invalid: it was given
    Iommufd iommufd;
    std::unique_ptr<IommufdContainer> container;
    util::Registration attached;  // the container, to a space
    unsigned devices = 0;
    IommufdPageTable* entered = nullptr;  // of the device that came last
};

IommufdHost::IommufdHost(Kernel& kernel, const system::GuestMemory& memory, std::string id,
                         KernelFile iommufd, DmaSpace* space)
    : kernel_(kernel),
      memory_(memory),
      id_(std::move(id)),
      given_(std::move(iommufd)),
      space_(space) {}

IommufdHost::~IommufdHost() = default;

unsigned IommufdHost::devices() const {
    const std::lock_guard lock(mutex_);
    return open_ ? open_->devices : 0;
}

DmaContainer* IommufdHost::container() const {
    const std::lock_guard lock(mutex_);
    return open_ ? open_->container.get() : nullptr;
}

Result<std::unique_ptr<IommufdHost::Open>> IommufdHost::open_iommufd() {
    KernelFile file;
    if (!given_.valid()) {
        auto opened = KernelFile::open(kernel_, std::string(kIommufdPath));
        if (!opened) return explain_iommufd(std::move(opened).error());
        file = std::move(*opened);
    }
    const BorrowedFd fd = given_.valid() ? given_.fd() : file.fd();
    auto open = std::make_unique<Open>(kernel_, std::move(file), fd);
    MIG_TRY(open->container, IommufdContainer::create(open->iommufd, id_));
    return open;
}

Result<> IommufdHost::fill(Open& open) {
    if (space_ == nullptr) return map_guest_memory(*open.container, memory_);
    MIG_TRY(open.attached, space_->attach(*open.container));
    return {};
}

Result<> IommufdHost::enter(Open& open, BorrowedFd device) {
    auto bound = open.iommufd.bind(device);
    if (!bound) return explain_bind(std::move(bound).error());
    MIG_TRY(open.entered, open.container->attach(device, *bound));
    if (open.devices == 0) {
        if (auto filled = fill(open); !filled) {
            Error error = std::move(filled).error();
            if (auto out = open.iommufd.detach(device); !out) {
                error.attach_in_place(std::move(out).error());
            }
            open.container->closed(open.entered);
            return error;
        }
    }
    ++open.devices;
    return {};
}

void IommufdHost::leave(IommufdPageTable* page_table) {
    const std::lock_guard lock(mutex_);
    open_->container->closed(page_table);
    if (--open_->devices == 0) open_.reset();
}

Result<std::unique_ptr<VfioDeviceIo>> IommufdHost::adopt_device(KernelFile device) {
    util::Registration lease;
    IommuDirtyLog* log = nullptr;
    {
        const std::lock_guard lock(mutex_);
        std::unique_ptr<Open> created;
        if (!open_) {
            MIG_TRY(created, open_iommufd(), "iommufd '{}'", id_);
        }
        MIG_CHECK(enter(created ? *created : *open_, device.fd()), "iommufd '{}'", id_);
        if (created) open_ = std::move(created);
        IommufdPageTable* const page_table = open_->entered;
        log = IommufdContainer::dirty_log(page_table);
        lease = util::Registration([this, page_table] { leave(page_table); });
    }
    return create_kernel_device_io(kernel_, std::move(device), std::move(lease), log);
}

Result<std::unique_ptr<VfioDeviceIo>> IommufdHost::open_device(std::string_view host) {
    MIG_TRY(KernelFile node, open_node(kernel_, host), "device {}", host);
    MIG_TRY(auto io, adopt_device(std::move(node)), "device {}", host);
    return io;
}

}  // namespace ferry::vfio
