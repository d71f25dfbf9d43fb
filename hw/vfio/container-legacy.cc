// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/container-legacy.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string>

#include "hw/vfio/device-io-kernel.h"
#include "hw/vfio/device-place.h"
#include "hw/vfio/type1-container.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

Result<unsigned> group_of(Kernel& kernel, const std::string& device_path) {
    auto link = kernel.readlink(device_path + "/iommu_group");
    if (!link) {
        Error error = std::move(link).error();
        if (error.errnum() != ENOENT) return error;
        return std::move(error).context(
            "no such device, or it has no IOMMU group; is the IOMMU on (intel_iommu=on)?");
    }
    const std::string_view number = last_component(*link);
    unsigned group = 0;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), group);
    if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size()) {
        return make_error(ErrorKind::Protocol, "{}/iommu_group points to '{}', no group number",
                          device_path, *link);
    }
    return group;
}

}  // namespace

struct VfioKernelHost::GroupInUse {
    VfioGroup group;
    unsigned devices = 0;
};

VfioKernelHost::VfioKernelHost(Kernel& kernel, const system::GuestMemory& memory, DmaSpace* space)
    : kernel_(kernel), memory_(memory), space_(space) {}

VfioKernelHost::~VfioKernelHost() = default;

DmaContainer* VfioKernelHost::container() const {
    const std::lock_guard lock(mutex_);
    return container_.get();
}

Result<VfioKernelHost::Held> VfioKernelHost::hold_group(unsigned number) {
    const std::lock_guard lock(mutex_);
    const auto held_by_caller = [this, number](GroupInUse& in_use) {
        return Held{util::Registration([this, number] { release_group(number); }), &in_use.group,
                    container_->dirty_log()};
    };
    if (const auto known = groups_.find(number); known != groups_.end()) {
        ++known->second->devices;
        return held_by_caller(*known->second);
    }
    // What is new is kept only when everything has worked.
    std::unique_ptr<Type1Container> created;
    if (!container_) {
        MIG_TRY(created, Type1Container::open(kernel_));
    }
    Type1Container& container = created ? *created : *container_;
    MIG_TRY(VfioGroup group, VfioGroup::open(kernel_, number));
    MIG_CHECK(container.attach(group));
    if (created) {
        if (space_ != nullptr) {
            MIG_TRY(attached_, space_->attach(container));
        } else {
            MIG_CHECK(map_guest_memory(container, memory_));
        }
        container_ = std::move(created);
    }
    const auto added =
        groups_.emplace(number, std::make_unique<GroupInUse>(std::move(group), 1)).first;
    return held_by_caller(*added->second);
}

void VfioKernelHost::release_group(unsigned number) {
    const std::lock_guard lock(mutex_);
    const auto at = groups_.find(number);
    if (--at->second->devices > 0) return;
    groups_.erase(at);
    // With its last group a container loses its mappings, so there is nothing left to keep.
    if (!groups_.empty()) return;
    attached_.reset();
    container_.reset();
}

Result<std::unique_ptr<VfioDeviceIo>> VfioKernelHost::open_device(std::string_view host) {
    MIG_TRY(const std::string path, sysfs_device_path(host));
    MIG_TRY(const unsigned number, group_of(kernel_, path), "device {}", host);
    MIG_TRY(Held held, hold_group(number), "device {}", host);
    MIG_TRY(KernelFile device, held.group->open_device(std::string(last_component(path))),
            "device {}", host);
    return create_kernel_device_io(kernel_, std::move(device), std::move(held.lease),
                                   held.dirty_log);
}

}  // namespace ferry::vfio
