// SPDX-License-Identifier: BSD-2-Clause
// The border to the kernel's KVM: all requests go through here, so that tests can stand in for it.
#pragma once

#include <string_view>

#include "accel/kvm/uapi.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::kvm {

// Thread-safe.
class KernelCalls {
 public:
    virtual ~KernelCalls() = default;
    // One ioctl; not repeated when a signal interrupts it. "call" as in util/syscall.h. The result
    // is the kernel's, at least 0.
    virtual Result<int> ioctl(BorrowedFd fd, unsigned long request, void* argument,
                              std::string_view call) = 0;
    Result<int> ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                            std::string_view call);
    // For requests that answer with a descriptor.
    Result<UniqueFd> ioctl_fd(BorrowedFd fd, unsigned long request, unsigned long value,
                              std::string_view call);
    // For requests whose answer says nothing but success.
    Result<> set(BorrowedFd fd, unsigned long request, const void* argument, std::string_view call);
    Result<> get(BorrowedFd fd, unsigned long request, void* argument, std::string_view call);
};

KernelCalls& system_calls();

}  // namespace ferry::kvm
