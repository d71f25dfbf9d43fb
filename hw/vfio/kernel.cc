// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/kernel.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

// Repeats a call that a signal interrupted; -1 becomes the Error.
template <typename Call>
auto checked(Call call, std::string_view name) -> Result<decltype(call())> {
    for (;;) {
        const auto value = call();
        if (value != -1) return value;
        const Error error = util::errno_error(std::string(name));
        if (error.errnum() != EINTR) return error;
    }
}

// The same for calls that return a byte count.
template <typename Call>
Result<size_t> checked_size(Call call, std::string_view name) {
    MIG_TRY(const ssize_t count, checked(call, name));
    return static_cast<size_t>(count);
}

}  // namespace

Result<KernelFile> KernelFile::open(Kernel& kernel, const std::string& path) {
    MIG_TRY(const BorrowedFd fd, kernel.open(path));
    return KernelFile(kernel, fd);
}

Result<BorrowedFd> SyscallKernel::open(const std::string& path) {
    MIG_TRY(UniqueFd fd, util::open_file(path, O_RDWR));
    return BorrowedFd(fd.release());
}

void SyscallKernel::close(BorrowedFd fd) noexcept {
    UniqueFd(fd.raw()).reset();
}

Result<std::string> SyscallKernel::readlink(const std::string& path) {
    std::string target(PATH_MAX, '\0');
    MIG_TRY(const size_t length,
            checked_size([&] { return ::readlink(path.c_str(), target.data(), target.size()); },
                         fmt::format("readlink({})", path)));
    target.resize(length);
    return target;
}

Result<std::vector<std::string>> SyscallKernel::list(const std::string& path) {
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), ::closedir);
    if (!folder) return util::errno_error(fmt::format("opendir({})", path));
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(folder.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    return names;
}

Result<int> SyscallKernel::ioctl(BorrowedFd fd, unsigned long request, void* argument,
                                 std::string_view call) {
    return checked([&] { return ::ioctl(fd.raw(), request, argument); }, call);
}

Result<int> SyscallKernel::ioctl_value(BorrowedFd fd, unsigned long request, unsigned long value,
                                       std::string_view call) {
    return checked([&] { return ::ioctl(fd.raw(), request, value); }, call);
}

Result<size_t> SyscallKernel::read(BorrowedFd fd, MutBytes into, std::string_view call) {
    return util::read_fd(fd, into, call);
}

Result<size_t> SyscallKernel::write(BorrowedFd fd, ConstBytes from, std::string_view call) {
    return util::write_fd(fd, from, call);
}

Result<size_t> SyscallKernel::pread(BorrowedFd fd, MutBytes into, uint64_t offset,
                                    std::string_view call) {
    return checked_size(
        [&] { return ::pread(fd.raw(), into.data(), into.size(), static_cast<off_t>(offset)); },
        call);
}

Result<size_t> SyscallKernel::pwrite(BorrowedFd fd, ConstBytes from, uint64_t offset,
                                     std::string_view call) {
    return checked_size(
        [&] { return ::pwrite(fd.raw(), from.data(), from.size(), static_cast<off_t>(offset)); },
        call);
}

Result<util::MappedRegion> SyscallKernel::map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                              std::string_view what) {
    return util::MappedRegion::map(fd, offset, size, what);
}

Result<bool> SyscallKernel::wait_ready(BorrowedFd fd, Event event, int timeout_ms) {
    const short events = event == Event::Readable ? POLLIN : POLLOUT;
    pollfd wanted{fd.raw(), events, 0};
    MIG_TRY(const int ready, util::poll_fds(&wanted, 1, timeout_ms));
    return ready != 0;
}

}  // namespace ferry::vfio
