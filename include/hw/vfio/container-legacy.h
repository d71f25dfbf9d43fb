// SPDX-License-Identifier: BSD-2-Clause
// Opens the host's VFIO devices for one VM: groups of one type1 container, into which all guest RAM
// is mapped, or what a virtual IOMMU translates. See docs/devel/vfio-kernel.rst.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include "hw/vfio/container.h"
#include "hw/vfio/dma-space.h"
#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/registration.h"

namespace ferry::vfio {

class Type1Container;
class VfioGroup;

// Any thread; calls that open or close groups wait for each other. The container is there from the
// first device to the last.
class VfioKernelHost {
 public:
    // All outlive the host, and it outlives the devices that it opened. `space`: the virtual IOMMU
    // that all of them are behind; null: they use guest physical addresses.
    VfioKernelHost(Kernel& kernel, const system::GuestMemory& memory, DmaSpace* space = nullptr);
    ~VfioKernelHost();
    VfioKernelHost(const VfioKernelHost&) = delete;
    VfioKernelHost& operator=(const VfioKernelHost&) = delete;

    // `host`: a PCI address ("0000:3b:00.2", "3b:00.2") or a device's path below /sys. Pins guest
    // RAM when it is the first device: takes a while.
    Result<std::unique_ptr<VfioDeviceIo>> open_device(std::string_view host);
    // Null while no device is open.
    DmaContainer* container() const;

 private:
    struct GroupInUse;
    struct Held {
        util::Registration lease;
        VfioGroup* group;          // while the lease is held
        IommuDirtyLog* dirty_log;  // may be null
    };
    // The hold on a group that a device has; the first opens it, the last closes it.
    Result<Held> hold_group(unsigned number);
    void release_group(unsigned number);

    Kernel& kernel_;
    const system::GuestMemory& memory_;
    DmaSpace* const space_;
    mutable std::mutex mutex_;  // all below
    std::unique_ptr<Type1Container> container_;
    util::Registration attached_;                             // the container, to the space
    std::map<unsigned, std::unique_ptr<GroupInUse>> groups_;  // goes before the container
};

}  // namespace ferry::vfio
