// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/calls.h"

#include <sys/ioctl.h>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::kvm {

namespace {
class SystemCalls final : public KernelCalls {
 public:
    Result<int> ioctl(BorrowedFd fd, unsigned long request, void* argument,
                      std::string_view call) override {
        return util::check_call(::ioctl(fd.raw(), request, argument), call);
    }
};
}  // namespace

Result<int> KernelCalls::ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                                     std::string_view call) {
    // NOLINTNEXTLINE(*-pro-type-reinterpret-cast,performance-no-int-to-ptr): a number
    return ioctl(fd, request, reinterpret_cast<void*>(value), call);
}

Result<UniqueFd> KernelCalls::ioctl_fd(BorrowedFd fd, unsigned long request, unsigned long value,
                                       std::string_view call) {
    MIG_TRY(const int raw, ioctl_value(fd, request, value, call));
    return UniqueFd(raw);
}

Result<> KernelCalls::set(BorrowedFd fd, unsigned long request, const void* argument,
                          std::string_view call) {
    return get(fd, request, const_cast<void*>(argument), call);
}

Result<> KernelCalls::get(BorrowedFd fd, unsigned long request, void* argument,
                          std::string_view call) {
    auto done = ioctl(fd, request, argument, call);
    if (!done) return std::move(done).error();
    return {};
}

KernelCalls& system_calls() {
    static SystemCalls calls;
    return calls;
}

}  // namespace ferry::kvm
