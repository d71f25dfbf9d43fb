// SPDX-License-Identifier: BSD-2-Clause
// Opens VFIO devices by nodes of their own and puts them into one address space of iommufd, into
// which all guest RAM is mapped, or what a virtual IOMMU translates. docs/devel/vfio-kernel.rst.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "hw/vfio/container.h"
#include "hw/vfio/dma-space.h"
#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"

namespace ferry::vfio {

struct IommufdPageTable;

// Any thread; calls wait for each other. iommufd is open from the first device to the last.
class IommufdHost {
 public:
    // All references outlive the host, and it outlives its devices. `id`: of the object, for
    // messages. `iommufd`: an open /dev/iommu to use instead of opening one, may be invalid.
    // `space`: the virtual IOMMU that all devices are behind, may be null.
    IommufdHost(Kernel& kernel, const system::GuestMemory& memory, std::string id,
                KernelFile iommufd = {}, DmaSpace* space = nullptr);
    ~IommufdHost();
    IommufdHost(const IommufdHost&) = delete;
    IommufdHost& operator=(const IommufdHost&) = delete;

    const std::string& id() const { return id_; }
    bool has_given_fd() const { return given_.valid(); }
    unsigned devices() const;

    // `host`: a PCI address or a device's path below /sys.
    Result<std::unique_ptr<VfioDeviceIo>> open_device(std::string_view host);
    // A device's node that somebody else has opened.
    Result<std::unique_ptr<VfioDeviceIo>> adopt_device(KernelFile device);
    // Null while there is no device.
    DmaContainer* container() const;

 private:
    struct Open;
    Result<std::unique_ptr<Open>> open_iommufd();
    Result<> enter(Open& open, BorrowedFd device);
    Result<> fill(Open& open);
    void leave(IommufdPageTable* page_table);

    Kernel& kernel_;
    const system::GuestMemory& memory_;
    const std::string id_;
    const KernelFile given_;
    DmaSpace* const space_;
    mutable std::mutex mutex_;
    std::unique_ptr<Open> open_;  // while there are devices
};

}  // namespace ferry::vfio
