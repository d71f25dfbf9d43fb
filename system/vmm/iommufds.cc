// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/iommufds.h"

#include "util/try.h"

namespace ferry::vmm {

void Iommufds::add(const std::string& id, UniqueFd fd) {
    vfio::KernelFile given;
    if (fd.valid()) given = vfio::KernelFile(kernel_, BorrowedFd(fd.release()));
    hosts_[id] = std::make_shared<vfio::IommufdHost>(kernel_, memory_, id, std::move(given));
}

Result<> Iommufds::remove(const std::string& id) {
    const auto at = hosts_.find(id);
    if (at == hosts_.end()) {
        return make_error(ErrorKind::InvalidArgument, "object '{}' not found", id);
    }
    if (at->second->devices() > 0 || at->second.use_count() > 1) {
        return make_error(ErrorKind::InvalidState, "object '{}' is in use, can not be deleted", id);
    }
    hosts_.erase(at);
    return {};
}

std::shared_ptr<vfio::IommufdHost> Iommufds::find(const std::string& id) const {
    const auto at = hosts_.find(id);
    return at == hosts_.end() ? nullptr : at->second;
}

std::vector<const vfio::IommufdHost*> Iommufds::all() const {
    std::vector<const vfio::IommufdHost*> all;
    for (const auto& [id, host] : hosts_) all.push_back(host.get());
    return all;
}

}  // namespace ferry::vmm
