// SPDX-License-Identifier: BSD-2-Clause
// A kernel whose calls fail as a FaultControl says, which also keeps the log of them. Calls go by
// the name that they have in errors: "ioctl(VFIO_DEVICE_FEATURE, GET MIG_DATA_SIZE)".
#pragma once

#include <memory>
#include <string>

#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/kernel.h"

namespace ferry::test {

// As thread-safe as what it disturbs. close() can't fail.
class FaultyKernel final : public vfio::Kernel {
 public:
    FaultyKernel(vfio::Kernel& disturbed, std::shared_ptr<vfio::FaultControl> control,
                 util::Env& env, std::string device)
        : inner_(disturbed), control_(std::move(control)), env_(env), device_(std::move(device)) {}

    Result<BorrowedFd> open(const std::string& path) override;
    void close(BorrowedFd fd) noexcept override { inner_.close(fd); }
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
    Result<> before(std::string_view call);

    vfio::Kernel& inner_;
    const std::shared_ptr<vfio::FaultControl> control_;
    util::Env& env_;
    const std::string device_;
};

}  // namespace ferry::test
