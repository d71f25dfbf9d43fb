// SPDX-License-Identifier: BSD-2-Clause
// The system calls behind VFIO devices and containers, as one seam: SyscallKernel is the kernel,
// tests put a fake there that judges every argument.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/bytes.h"
#include "util/mapped-region.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::vfio {

// Thread-safe. Interrupted calls are repeated inside. `call` names the call in errors, such as
// "ioctl(VFIO_DEVICE_RESET)"; errors are Error{Syscall, errno}.
class Kernel {
 public:
    virtual ~Kernel() = default;
    // For reading and writing, close-on-exec. The caller closes: see KernelFile.
    virtual Result<BorrowedFd> open(const std::string& path) = 0;
    virtual void close(BorrowedFd fd) noexcept = 0;
    virtual Result<std::string> readlink(const std::string& path) = 0;
    // The names in a folder, without "." and "..".
    virtual Result<std::vector<std::string>> list(const std::string& path) = 0;

    // `argument`: the request's struct, read and written by the kernel. Returns the call's value.
    virtual Result<int> ioctl(BorrowedFd fd, unsigned long request, void* argument,
                              std::string_view call) = 0;
    // For requests that take a number, or nothing (0).
    virtual Result<int> ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                                    std::string_view call) = 0;

    // Any of these may be short.
    virtual Result<size_t> read(BorrowedFd fd, MutBytes into, std::string_view call) = 0;
    virtual Result<size_t> write(BorrowedFd fd, ConstBytes from, std::string_view call) = 0;
    virtual Result<size_t> pread(BorrowedFd fd, MutBytes into, uint64_t offset,
                                 std::string_view call) = 0;
    virtual Result<size_t> pwrite(BorrowedFd fd, ConstBytes from, uint64_t offset,
                                  std::string_view call) = 0;
    virtual Result<util::MappedRegion> map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                           std::string_view what) = 0;

    enum class Event : uint8_t { Readable, Writable };
    // Waits for a descriptor; false when timeout_ms went by.
    virtual Result<bool> wait_ready(BorrowedFd fd, Event event, int timeout_ms) = 0;
};

class SyscallKernel final : public Kernel {
 public:
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
};

// Owns a descriptor of a Kernel, which outlives it.
class KernelFile {
 public:
    KernelFile() = default;
    KernelFile(Kernel& kernel, BorrowedFd fd) : kernel_(&kernel), fd_(fd) {}
    KernelFile(KernelFile&& other) noexcept
        : kernel_(other.kernel_), fd_(std::exchange(other.fd_, {})) {}
    KernelFile& operator=(KernelFile&& other) noexcept {
        if (this != &other) {
            reset();
            kernel_ = other.kernel_;
            fd_ = std::exchange(other.fd_, {});
        }
        return *this;
    }
    KernelFile(const KernelFile&) = delete;
    KernelFile& operator=(const KernelFile&) = delete;
    ~KernelFile() { reset(); }

    static Result<KernelFile> open(Kernel& kernel, const std::string& path);
    bool valid() const { return fd_.valid(); }
    BorrowedFd fd() const { return fd_; }
    void reset() noexcept {
        if (fd_.valid()) kernel_->close(std::exchange(fd_, {}));
    }

 private:
    Kernel* kernel_ = nullptr;
    BorrowedFd fd_;
};

}  // namespace ferry::vfio
