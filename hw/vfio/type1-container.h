// SPDX-License-Identifier: BSD-2-Clause
// The kernel's /dev/vfio/vfio and /dev/vfio/GROUP. Errors say what the administrator can do.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "hw/vfio/container.h"
#include "hw/vfio/kernel.h"
#include "hw/vfio/type1-dirty-log.h"

namespace ferry::vfio {

// An open group. Closing it takes it out of its container; its devices are closed before.
class VfioGroup {
 public:
    // Refuses a group that is not viable.
    static Result<VfioGroup> open(Kernel& kernel, unsigned number);

    Result<KernelFile> open_device(const std::string& name);
    BorrowedFd fd() const { return file_.fd(); }
    unsigned number() const { return number_; }

 private:
    VfioGroup(Kernel& kernel, KernelFile file, unsigned number)
        : kernel_(&kernel), file_(std::move(file)), number_(number) {}
    Result<> check_viable();

    Kernel* kernel_;
    KernelFile file_;
    unsigned number_;
};

// Must outlive its groups.
class Type1Container final : public DmaContainer {
 public:
    static Result<std::unique_ptr<Type1Container>> open(Kernel& kernel);

    // The first group also decides for type1 v2; only then memory can be mapped.
    Result<> attach(VfioGroup& group);

    std::string_view name() const override { return "/dev/vfio/vfio"; }
    Result<> dma_map(system::Iova iova, MutBytes host, MapAccess access) override;
    Result<> dma_unmap(system::Iova iova, uint64_t length) override;
    Result<> dma_unmap_written(system::Iova iova, uint64_t length, util::Bitmap& written) override;
    // Null while it would only say "everything".
    IommuDirtyLog* dirty_log() { return log_.usable() ? &log_ : nullptr; }

 private:
    Type1Container(Kernel& kernel, KernelFile file)
        : kernel_(kernel), file_(std::move(file)), log_(kernel, file_.fd()) {}
    Result<> learn_info();

    Kernel& kernel_;
    const KernelFile file_;
    Type1DirtyLog log_;
    bool has_iommu_ = false;
};

}  // namespace ferry::vfio
