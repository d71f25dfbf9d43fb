// SPDX-License-Identifier: BSD-2-Clause
// The kernel's VFIO interface as far as Ferry uses it, without a kernel. Judges what it is asked
// with the kernel's rules (argsz, flags, alignment, order) and keeps a log of it. Descriptors are
// numbers of its own, so that a leak shows.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hw/vfio/kernel.h"
#include "tests/fakes/fake-iommufd.h"
#include "tests/fakes/fake-type1.h"
#include "tests/fakes/fake-vfio-device.h"

namespace ferry::test {

class FakeVfioKernel final : public vfio::Kernel {
 public:
    FakeVfioDevice& add_device(const std::string& name, unsigned group);
    // A PCI function with BAR0, MSI-X (4 vectors in BAR2), a vendor capability: see the .cc.
    FakeVfioDevice& add_pci_device(const std::string& name, unsigned group);

    // The call number `call`, counted from 1 over all of them, fails with `errnum`.
    void fail_call(unsigned call, int errnum) {
        fail_at_ = call;
        fail_errnum_ = errnum;
    }
    unsigned calls() const { return calls_; }
    // Called at each of them, before it is carried out.
    std::function<void()> on_call;
    size_t open_fds() const { return open_.size(); }
    // The container; there is one.
    FakeType1& type1() { return type1_; }
    FakeIommufd& iommufd() { return iommufd_; }
    // An open /dev/iommu, or node of a device, as somebody hands it over.
    BorrowedFd hand_over(const std::string& path);
    // The device fills the page at `iova`, through whatever maps it; false where nothing does.
    bool dma_write(FakeVfioDevice& device, uint64_t iova, std::byte value);
    // What was asked for, in order; what broke a rule.
    std::vector<std::string> log;
    std::vector<std::string> faults;

    int api_version = 0;
    bool has_type1v2 = true;
    int set_iommu_errnum = 0;
    bool has_iommufd = true;
    bool has_device_nodes = true;
    std::map<unsigned, bool> group_viable;  // true where not listed
    std::map<unsigned, int> group_open_errnum;

    Result<BorrowedFd> open(const std::string& path) override;
    void close(BorrowedFd fd) noexcept override;
    Result<std::string> readlink(const std::string& path) override;
    Result<std::vector<std::string>> list(const std::string& path) override;
    Result<int> ioctl(BorrowedFd fd, unsigned long request, void* argument,
                      std::string_view call) override;
    Result<int> ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                            std::string_view call) override;
    Result<size_t> read(BorrowedFd fd, MutBytes into, std::string_view call) override;
    Result<size_t> write(BorrowedFd fd, ConstBytes from, std::string_view call) override;
    Result<size_t> pread(BorrowedFd fd, MutBytes into, uint64_t offset,
                         std::string_view call) override;
    Result<size_t> pwrite(BorrowedFd fd, ConstBytes from, uint64_t offset,
                          std::string_view call) override;
    Result<util::MappedRegion> map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                   std::string_view what) override;
    Result<bool> wait_ready(BorrowedFd fd, Event event, int timeout_ms) override;

 private:
    enum class Kind : uint8_t { Container, Group, Device, Data, Iommufd };
    struct File {
        Kind kind;
        unsigned group = 0;
        FakeVfioDevice* device = nullptr;
        uint64_t session = 0;
        bool attached = false;  // a group in the container
        enum class By : uint8_t { Group, Node, BoundNode } by = By::Group;  // a device was opened
    };

    int install(File file);
    // -errno when this is the call that was to fail.
    SysValue count_call();
    File* file_of(BorrowedFd fd);
    SysValue container_value(unsigned long request, unsigned long value);
    Result<BorrowedFd> open_path(const std::string& path, const std::string& call);
    // Of a device that was opened by its node; nothing: as any device's.
    std::optional<SysValue> node_ioctl(File& file, unsigned long request, void* argument);
    SysValue bind(File& file, void* argument);
    SysValue group_ioctl(File& group, unsigned long request, void* argument);
    SysValue dispatch(BorrowedFd fd, unsigned long request, void* argument);
    size_t attached_groups() const;

    std::mutex mutex_;
    std::vector<std::unique_ptr<FakeVfioDevice>> devices_;
    std::map<int, File> open_;
    FakeType1 type1_{log};
    FakeIommufd iommufd_{log, faults};
    bool has_iommu_ = false;
    int next_fd_ = 1000;
    unsigned calls_ = 0;
    unsigned fail_at_ = 0;
    int fail_errnum_ = 0;
};

}  // namespace ferry::test
