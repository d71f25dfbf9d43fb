// SPDX-License-Identifier: BSD-2-Clause
// The iommufd objects of a VM (-object iommufd, object-add), into which vfio-pci,iommufd=ID puts
// its device.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hw/vfio/container-iommufd.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vmm {

// Main loop thread.
class Iommufds {
 public:
    // Both outlive this.
    Iommufds(vfio::Kernel& kernel, const system::GuestMemory& memory)
        : kernel_(kernel), memory_(memory) {}

    // `fd`: an open /dev/iommu; invalid: it is opened with the first device. `id` is new.
    void add(const std::string& id, UniqueFd fd);
    bool contains(const std::string& id) const { return hosts_.contains(id); }
    // InvalidState while a device uses it, or is about to.
    Result<> remove(const std::string& id);

    // Null when there is none. Held by those who are going to open a device.
    std::shared_ptr<vfio::IommufdHost> find(const std::string& id) const;
    std::vector<const vfio::IommufdHost*> all() const;

 private:
    vfio::Kernel& kernel_;
    const system::GuestMemory& memory_;
    std::map<std::string, std::shared_ptr<vfio::IommufdHost>> hosts_;
};

}  // namespace ferry::vmm
