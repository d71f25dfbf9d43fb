// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/faulty-kernel.h"

#include "util/try.h"

namespace ferry::test {

// A fault looks as one of the kernel: the name of the call and the errno.
Result<> FaultyKernel::before(std::string_view call) {
    const auto outcome = control_->on_call(env_.trace, {device_, std::string(call), ""});
    if (outcome.result) return {};
    return make_errno(outcome.result.error().errnum(), "{}", call);
}

Result<BorrowedFd> FaultyKernel::open(const std::string& path) {
    MIG_CHECK(before("open"));
    return inner_.open(path);
}

Result<std::string> FaultyKernel::readlink(const std::string& path) {
    MIG_CHECK(before("readlink"));
    return inner_.readlink(path);
}

Result<std::vector<std::string>> FaultyKernel::list(const std::string& path) {
    MIG_CHECK(before("opendir"));
    return inner_.list(path);
}

Result<int> FaultyKernel::ioctl(BorrowedFd fd, unsigned long request, void* argument,
                                std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.ioctl(fd, request, argument, call);
}

Result<int> FaultyKernel::ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                                      std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.ioctl_value(fd, request, value, call);
}

Result<size_t> FaultyKernel::read(BorrowedFd fd, MutBytes into, std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.read(fd, into, call);
}

Result<size_t> FaultyKernel::write(BorrowedFd fd, ConstBytes from, std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.write(fd, from, call);
}

Result<size_t> FaultyKernel::pread(BorrowedFd fd, MutBytes into, uint64_t offset,
                                   std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.pread(fd, into, offset, call);
}

Result<size_t> FaultyKernel::pwrite(BorrowedFd fd, ConstBytes from, uint64_t offset,
                                    std::string_view call) {
    MIG_CHECK(before(call));
    return inner_.pwrite(fd, from, offset, call);
}

Result<util::MappedRegion> FaultyKernel::map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                             std::string_view what) {
    MIG_CHECK(before("mmap"));
    return inner_.map(fd, offset, size, what);
}

Result<bool> FaultyKernel::wait_ready(BorrowedFd fd, Event event, int timeout_ms) {
    MIG_CHECK(before("poll"));
    return inner_.wait_ready(fd, event, timeout_ms);
}

}  // namespace ferry::test
