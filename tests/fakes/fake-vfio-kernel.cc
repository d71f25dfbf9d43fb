// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/fake-vfio-kernel.h"

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hw/vfio/iommufd-uapi.h"
#include "hw/vfio/uapi.h"
#include "tests/fakes/argument.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::test {

using vfio::MigState;
namespace uapi = vfio::uapi;

namespace {

template <typename T>
Result<T> result_of(SysValue value, std::string_view call) {
    if (value < 0) return make_errno(static_cast<int>(-value), "{}", call);
    return static_cast<T>(value);
}

constexpr uint64_t kPage = 4096;

}  // namespace

FakeVfioDevice& FakeVfioKernel::add_device(const std::string& name, unsigned group) {
    devices_.push_back(std::make_unique<FakeVfioDevice>(name, group, log, faults));
    return *devices_.back();
}

// Layout of the configuration space: MSI-X at 0x40 (4 vectors, table BAR2+0, PBA BAR2+0x800), a
// vendor capability of 16 bytes at 0x50, PCI Express with function level reset at 0x60.
FakeVfioDevice& FakeVfioKernel::add_pci_device(const std::string& name, unsigned group) {
    FakeVfioDevice& device = add_device(name, group);
    constexpr uint32_t kReadWrite = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    device.regions.resize(VFIO_PCI_NUM_REGIONS);
    device.add_region(VFIO_PCI_BAR0_REGION_INDEX, 4 * kPage,
                      kReadWrite | VFIO_REGION_INFO_FLAG_MMAP);
    device.add_region(VFIO_PCI_BAR2_REGION_INDEX, kPage, kReadWrite);
    auto& config = device.add_region(VFIO_PCI_CONFIG_REGION_INDEX, PCI_CFG_SPACE_SIZE, kReadWrite);
    device.regions[VFIO_PCI_VGA_REGION_INDEX].absent = true;

    std::byte* at = config.bytes().data();
    const auto byte = [at](size_t offset, uint8_t value) { at[offset] = std::byte{value}; };
    util::store_le16(at + PCI_VENDOR_ID, 0xf3e4);
    util::store_le16(at + PCI_DEVICE_ID, 0x0101);
    util::store_le16(at + PCI_STATUS, PCI_STATUS_CAP_LIST);
    byte(PCI_REVISION_ID, 3);
    util::store_le16(at + PCI_CLASS_DEVICE, 0x0880);
    util::store_le32(at + PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_MEM_TYPE_64);
    byte(PCI_INTERRUPT_PIN, 1);
    byte(PCI_CAPABILITY_LIST, 0x40);
    byte(0x40, PCI_CAP_ID_MSIX);
    byte(0x41, 0x50);
    util::store_le16(at + 0x42, 3);      // 4 vectors
    util::store_le32(at + 0x44, 2);      // table: BAR2 + 0
    util::store_le32(at + 0x48, 0x802);  // pending bits: BAR2 + 0x800
    byte(0x50, PCI_CAP_ID_VNDR);
    byte(0x51, 0x60);
    byte(0x52, 16);
    byte(0x60, PCI_CAP_ID_EXP);
    util::store_le16(at + 0x62, 2);
    util::store_le32(at + 0x64, PCI_EXP_DEVCAP_FLR);

    device.set_irq(VFIO_PCI_INTX_IRQ_INDEX, 1,
                   VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
    device.set_irq(VFIO_PCI_MSI_IRQ_INDEX, 0, VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE);
    device.set_irq(VFIO_PCI_MSIX_IRQ_INDEX, 4, VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE);
    device.set_irq(VFIO_PCI_ERR_IRQ_INDEX, 0, 0);
    device.irqs[VFIO_PCI_ERR_IRQ_INDEX].absent = true;
    device.set_irq(VFIO_PCI_REQ_IRQ_INDEX, 1, VFIO_IRQ_INFO_EVENTFD);
    return device;
}

bool FakeVfioKernel::dma_write(FakeVfioDevice& device, uint64_t iova, std::byte value) {
    const std::lock_guard lock(mutex_);
    device.dma_write(iova);
    return iommufd_.dma_write(device, iova, value) || type1_.dma_write(iova, value);
}

int FakeVfioKernel::install(File file) {
    open_.emplace(next_fd_, file);
    return next_fd_++;
}

SysValue FakeVfioKernel::count_call() {
    if (on_call) on_call();
    return ++calls_ == fail_at_ ? -fail_errnum_ : 0;
}

FakeVfioKernel::File* FakeVfioKernel::file_of(BorrowedFd fd) {
    const auto at = open_.find(fd.raw());
    if (at != open_.end()) return &at->second;
    faults.push_back(fmt::format("descriptor {} is not open", fd.raw()));
    return nullptr;
}

size_t FakeVfioKernel::attached_groups() const {
    return static_cast<size_t>(
        std::ranges::count_if(open_, [](const auto& entry) { return entry.second.attached; }));
}

Result<BorrowedFd> FakeVfioKernel::open(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const std::string call = fmt::format("open({})", path);
    log.push_back(call);
    if (const SysValue failed = count_call(); failed < 0) {
        return make_errno(static_cast<int>(-failed), "{}", call);
    }
    return open_path(path, call);
}

BorrowedFd FakeVfioKernel::hand_over(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return *open_path(path, "open");
}

Result<BorrowedFd> FakeVfioKernel::open_path(const std::string& path, const std::string& call) {
    if (path == "/dev/vfio/vfio") return BorrowedFd(install({.kind = Kind::Container}));
    if (path == "/dev/iommu" && has_iommufd) return BorrowedFd(install({.kind = Kind::Iommufd}));
    for (size_t i = 0; i < devices_.size() && has_device_nodes; ++i) {
        if (path != fmt::format("/dev/vfio/devices/vfio{}", i)) continue;
        return BorrowedFd(
            install({.kind = Kind::Device, .device = devices_[i].get(), .by = File::By::Node}));
    }
    for (const auto& device : devices_) {
        if (path != fmt::format("/dev/vfio/{}", device->group)) continue;
        if (group_open_errnum.contains(device->group)) {
            return make_errno(group_open_errnum[device->group], "{}", call);
        }
        for (const auto& [fd, file] : open_) {
            if (file.kind == Kind::Group && file.group == device->group) {
                return make_errno(EBUSY, "{}", call);
            }
        }
        return BorrowedFd(install({.kind = Kind::Group, .group = device->group}));
    }
    return make_errno(ENOENT, "{}", call);
}

void FakeVfioKernel::close(BorrowedFd fd) noexcept {
    const std::lock_guard lock(mutex_);
    const File* file = file_of(fd);
    if (file == nullptr) return;
    const File gone = *file;
    open_.erase(fd.raw());
    switch (gone.kind) {
        case Kind::Container:
            log.emplace_back("close(container)");
            if (attached_groups() != 0) faults.emplace_back("container closed before its groups");
            break;
        case Kind::Group:
            log.push_back(fmt::format("close(group {})", gone.group));
            for (const auto& [other, open_file] : open_) {
                if (open_file.kind == Kind::Device && open_file.device->group == gone.group) {
                    faults.push_back(fmt::format("group {} closed before a device", gone.group));
                }
            }
            if (attached_groups() == 0) {
                type1_.clear();
                has_iommu_ = false;
            }
            break;
        case Kind::Device:
            log.push_back(fmt::format("close(device {})", gone.device->name));
            if (gone.by == File::By::BoundNode) iommufd_.device_closed(*gone.device);
            gone.device->state = MigState::Running;
            gone.device->session_ = 0;
            gone.device->eventfds_.clear();
            gone.device->allocated_.clear();
            break;
        case Kind::Data: log.push_back(fmt::format("close(data of {})", gone.device->name)); break;
        case Kind::Iommufd:
            log.emplace_back("close(iommufd)");
            iommufd_.closed();
            break;
    }
}

Result<std::string> FakeVfioKernel::readlink(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const std::string call = fmt::format("readlink({})", path);
    if (const SysValue failed = count_call(); failed < 0) {
        return make_errno(static_cast<int>(-failed), "{}", call);
    }
    for (const auto& device : devices_) {
        if (path.ends_with(fmt::format("/{}/iommu_group", device->name))) {
            return fmt::format("../../../../kernel/iommu_groups/{}", device->group);
        }
    }
    return make_errno(ENOENT, "{}", call);
}

Result<std::vector<std::string>> FakeVfioKernel::list(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const std::string call = fmt::format("opendir({})", path);
    if (const SysValue failed = count_call(); failed < 0) {
        return make_errno(static_cast<int>(-failed), "{}", call);
    }
    for (size_t i = 0; i < devices_.size(); ++i) {
        if (!path.ends_with(fmt::format("/{}/vfio-dev", devices_[i]->name))) continue;
        return std::vector<std::string>{fmt::format("vfio{}", i)};
    }
    return make_errno(ENOENT, "{}", call);
}

SysValue FakeVfioKernel::bind(File& file, void* argument) {
    auto bind = load<uapi::BindIommufd>(argument);
    if (bind.argsz < sizeof(bind) || bind.flags != 0 || bind.iommufd < 0) return -EINVAL;
    const auto at = open_.find(bind.iommufd);
    if (at == open_.end()) return -EBADF;
    if (at->second.kind != Kind::Iommufd) return -EBADFD;
    for (const auto& [fd, other] : open_) {
        if (other.kind == Kind::Group && other.group == file.device->group) return -EBUSY;
    }
    const SysValue bound = iommufd_.bind(*file.device, bind.out_devid);
    if (bound != 0) return bound;
    file.by = File::By::BoundNode;
    store(argument, bind);
    return 0;
}

std::optional<SysValue> FakeVfioKernel::node_ioctl(File& file, unsigned long request,
                                                   void* argument) {
    if (file.by == File::By::Group) return std::nullopt;
    const bool bound = file.by == File::By::BoundNode;
    const bool bind_call = request == uapi::kDeviceBindIommufd;
    if (bind_call == bound) return -EINVAL;
    if (const auto wanted = iommufd_.errnums.find(request); wanted != iommufd_.errnums.end()) {
        return -wanted->second;
    }
    if (bind_call) return bind(file, argument);
    if (request == uapi::kDeviceAttachPt) {
        auto attach = load<uapi::AttachPt>(argument);
        if (attach.argsz < sizeof(attach) || attach.flags != 0) return -EINVAL;
        return iommufd_.attach(*file.device, attach.pt_id);
    }
    if (request == uapi::kDeviceDetachPt) {
        const auto detach = load<uapi::DetachPt>(argument);
        if (detach.argsz < sizeof(detach) || detach.flags != 0) return -EINVAL;
        return iommufd_.detach(*file.device);
    }
    return std::nullopt;
}

Result<int> FakeVfioKernel::ioctl(BorrowedFd fd, unsigned long request, void* argument,
                                  std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<int>(failed, call);
    return result_of<int>(dispatch(fd, request, argument), call);
}

SysValue FakeVfioKernel::dispatch(BorrowedFd fd, unsigned long request, void* argument) {
    File* file = file_of(fd);
    if (file == nullptr) return -EBADF;
    switch (file->kind) {
        case Kind::Container: return has_iommu_ ? type1_.ioctl(request, argument) : -EINVAL;
        case Kind::Group: return group_ioctl(*file, request, argument);
        case Kind::Data:
            if (request != uapi::kMigGetPrecopyInfo) return -ENOTTY;
            return file->device->precopy_info(file->session, argument);
        case Kind::Iommufd: return iommufd_.ioctl(request, argument);
        case Kind::Device: break;
    }
    if (const auto answered = node_ioctl(*file, request, argument)) return *answered;
    FakeVfioDevice& device = *file->device;
    device.new_session_ = 0;
    const SysValue value = device.ioctl(request, argument);
    const uint64_t session = std::exchange(device.new_session_, 0);
    if (value < 0 || session == 0) return value;
    if (std::exchange(device.no_descriptor_left, false)) return -EMFILE;
    const int32_t data = install({.kind = Kind::Data, .device = &device, .session = session});
    std::memcpy(static_cast<std::byte*>(argument) + offsetof(vfio_device_feature, data) +
                    offsetof(vfio_device_feature_mig_state, data_fd),
                &data, sizeof(data));
    return value;
}

Result<int> FakeVfioKernel::ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                                        std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<int>(failed, call);
    const File* file = file_of(fd);
    if (file == nullptr) return result_of<int>(-EBADF, call);
    if (file->kind == Kind::Container) return result_of<int>(container_value(request, value), call);
    if (file->kind == Kind::Device && request == VFIO_DEVICE_RESET) {
        return result_of<int>(file->device->reset(), call);
    }
    return result_of<int>(-ENOTTY, call);
}

SysValue FakeVfioKernel::container_value(unsigned long request, unsigned long value) {
    switch (request) {
        case VFIO_GET_API_VERSION: return api_version;
        case VFIO_CHECK_EXTENSION: return value == VFIO_TYPE1v2_IOMMU && has_type1v2 ? 1 : 0;
        case VFIO_SET_IOMMU:
            if (has_iommu_ || attached_groups() == 0) return -EINVAL;
            if (value != VFIO_TYPE1v2_IOMMU) return -ENODEV;
            if (set_iommu_errnum != 0) return -set_iommu_errnum;
            has_iommu_ = true;
            return 0;
        default: return -ENOTTY;
    }
}

SysValue FakeVfioKernel::group_ioctl(File& group, unsigned long request, void* argument) {
    switch (request) {
        case VFIO_GROUP_GET_STATUS: {
            vfio_group_status status;
            std::memcpy(&status, argument, sizeof(status));
            if (status.argsz < sizeof(status)) return -EINVAL;
            const bool viable = !group_viable.contains(group.group) || group_viable[group.group];
            status.flags = (viable ? VFIO_GROUP_FLAGS_VIABLE : 0u) |
                           (group.attached ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0u);
            std::memcpy(argument, &status, sizeof(status));
            return 0;
        }
        case VFIO_GROUP_SET_CONTAINER: {
            int32_t fd = -1;
            std::memcpy(&fd, argument, sizeof(fd));
            const auto at = open_.find(fd);
            if (at == open_.end()) return -EBADF;
            if (at->second.kind != Kind::Container) return -EBADFD;
            if (group.attached) return -EINVAL;
            group.attached = true;
            return 0;
        }
        case VFIO_GROUP_GET_DEVICE_FD: {
            const std::string name(static_cast<const char*>(argument));
            if (!group.attached || !has_iommu_) return -EINVAL;
            for (const auto& device : devices_) {
                if (device->name != name || device->group != group.group) continue;
                log.push_back(fmt::format("open(device {})", name));
                return install({.kind = Kind::Device, .device = device.get()});
            }
            return -ENODEV;
        }
        default: return -ENOTTY;
    }
}

Result<size_t> FakeVfioKernel::read(BorrowedFd fd, MutBytes into, std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<size_t>(failed, call);
    const File* file = file_of(fd);
    if (file == nullptr) return result_of<size_t>(-EBADF, call);
    if (file->kind != Kind::Data) return result_of<size_t>(-EINVAL, call);
    return result_of<size_t>(file->device->read_data(file->session, into), call);
}

Result<size_t> FakeVfioKernel::write(BorrowedFd fd, ConstBytes from, std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<size_t>(failed, call);
    const File* file = file_of(fd);
    if (file == nullptr) return result_of<size_t>(-EBADF, call);
    if (file->kind != Kind::Data) return result_of<size_t>(-EINVAL, call);
    return result_of<size_t>(file->device->write_data(file->session, from), call);
}

Result<size_t> FakeVfioKernel::pread(BorrowedFd fd, MutBytes into, uint64_t offset,
                                     std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<size_t>(failed, call);
    const File* file = file_of(fd);
    if (file == nullptr) return result_of<size_t>(-EBADF, call);
    if (file->kind != Kind::Device) return result_of<size_t>(-ESPIPE, call);
    MutBytes bytes;
    const SysValue count = file->device->access(offset, into.size(), bytes);
    std::ranges::copy(bytes, into.begin());
    return result_of<size_t>(count, call);
}

Result<size_t> FakeVfioKernel::pwrite(BorrowedFd fd, ConstBytes from, uint64_t offset,
                                      std::string_view call) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<size_t>(failed, call);
    const File* file = file_of(fd);
    if (file == nullptr) return result_of<size_t>(-EBADF, call);
    if (file->kind != Kind::Device) return result_of<size_t>(-ESPIPE, call);
    MutBytes bytes;
    const SysValue count = file->device->access(offset, from.size(), bytes);
    std::ranges::copy(from.first(bytes.size()), bytes.begin());
    log.push_back(fmt::format("{}: write {}+{:#x} {} bytes", file->device->name,
                              offset / kFakeRegionStride, offset % kFakeRegionStride,
                              bytes.size()));
    return result_of<size_t>(count, call);
}

Result<util::MappedRegion> FakeVfioKernel::map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                               std::string_view what) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) {
        return make_errno(static_cast<int>(-failed), "mmap({})", what);
    }
    const File* file = file_of(fd);
    if (file == nullptr || file->kind != Kind::Device) return make_errno(EBADF, "mmap({})", what);
    const uint64_t index = offset / kFakeRegionStride;
    const auto& region = file->device->regions.at(index);
    if ((region.flags & VFIO_REGION_INFO_FLAG_MMAP) == 0 || offset % kPage != 0) {
        return make_errno(EINVAL, "mmap({})", what);
    }
    return util::MappedRegion::map(region.file.borrow(), offset % kFakeRegionStride, size, what);
}

Result<bool> FakeVfioKernel::wait_ready(BorrowedFd fd, Event event, int timeout_ms) {
    const std::lock_guard lock(mutex_);
    if (const SysValue failed = count_call(); failed < 0) return result_of<bool>(failed, "poll");
    if (file_of(fd) == nullptr || timeout_ms < 0) faults.emplace_back("wait without end");
    log.emplace_back(event == Event::Readable ? "poll readable" : "poll writable");
    return true;
}

}  // namespace ferry::test
