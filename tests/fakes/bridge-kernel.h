// SPDX-License-Identifier: BSD-2-Clause
// The kernel's device calls in front of any VfioDeviceIo: what one side encodes, this decodes and
// hands on. With it, the suite of all device interfaces runs over the one of the kernel.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "hw/vfio/kernel.h"
#include "hw/vfio/vfio-device-io.h"

namespace ferry::test {

// One thread at a time.
class BridgeKernel final : public vfio::Kernel {
 public:
    explicit BridgeKernel(vfio::VfioDeviceIo& device) : device_(device) {}
    vfio::KernelFile device_file() { return {*this, BorrowedFd(kDeviceFd)}; }
    size_t open_streams() const { return streams_.size(); }

    Result<BorrowedFd> open(const std::string& path) override;
    void close(BorrowedFd fd) noexcept override { streams_.erase(fd.raw()); }
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
    static constexpr int kDeviceFd = 3000;

    Result<> device_call(unsigned long request, void* argument);
    Result<> get_info(void* argument);
    Result<> get_region_info(void* argument);
    Result<> get_irq_info(void* argument);
    Result<> set_irqs(const void* argument);
    Result<> feature(void* argument);
    Result<> mig_state(uint32_t action, std::byte* payload);
    Result<> log_start(const std::byte* payload);
    Result<> log_report(const std::byte* payload);
    vfio::MigDataStream* stream(BorrowedFd fd) const;

    vfio::VfioDeviceIo& device_;
    std::map<int, std::unique_ptr<vfio::MigDataStream>> streams_;
    int next_fd_ = kDeviceFd + 1;
};

}  // namespace ferry::test
