// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "hw/vfio/kernel.h"

namespace ferry::vfio {
namespace {

TEST(SyscallKernel, ErrorsCarryCallAndErrno) {
    SyscallKernel kernel;
    const auto opened = KernelFile::open(kernel, "/dev/vfio/no-such-group");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().errnum(), ENOENT);
    EXPECT_EQ(opened.error().kind(), ErrorKind::Syscall);
    const auto link = kernel.readlink("/proc/self/no-such-link");
    ASSERT_FALSE(link);
    EXPECT_EQ(link.error().text(), "readlink(/proc/self/no-such-link)");
    const auto call = kernel.ioctl(BorrowedFd(-1), 0, nullptr, "ioctl(X)");
    ASSERT_FALSE(call);
    EXPECT_EQ(call.error().errnum(), EBADF);
    EXPECT_EQ(call.error().text(), "ioctl(X)");
}

TEST(SyscallKernel, FileIsClosedOnExecAndByItsOwner) {
    SyscallKernel kernel;
    int raw = -1;
    {
        auto file = KernelFile::open(kernel, "/dev/null");
        ASSERT_TRUE(file);
        raw = file->fd().raw();
        EXPECT_NE(::fcntl(raw, F_GETFD) & FD_CLOEXEC, 0);
    }
    EXPECT_EQ(::fcntl(raw, F_GETFD), -1);
}

TEST(SyscallKernel, LinkIsReadWhole) {
    SyscallKernel kernel;
    const auto link = kernel.readlink("/proc/self/exe");
    ASSERT_TRUE(link);
    EXPECT_EQ(link->find('\0'), std::string::npos);
    EXPECT_TRUE(link->starts_with('/'));
}

TEST(SyscallKernel, ReadinessIsAskedOfTheDescriptor) {
    SyscallKernel kernel;
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    const UniqueFd near(ends[0]);
    const UniqueFd far(ends[1]);
    EXPECT_FALSE(*kernel.wait_ready(near.borrow(), Kernel::Event::Readable, 0));
    EXPECT_TRUE(*kernel.wait_ready(near.borrow(), Kernel::Event::Writable, 0));
    const std::array<std::byte, 2> sent{std::byte{1}, std::byte{2}};
    EXPECT_EQ(*kernel.write(far.borrow(), sent, "write"), 2u);
    EXPECT_TRUE(*kernel.wait_ready(near.borrow(), Kernel::Event::Readable, 0));
    int available = 0;
    ASSERT_TRUE(kernel.ioctl(near.borrow(), FIONREAD, &available, "ioctl(FIONREAD)"));
    EXPECT_EQ(available, 2);
    std::array<std::byte, 8> got{};
    EXPECT_EQ(*kernel.read(near.borrow(), got, "read"), 2u);
}

}  // namespace
}  // namespace ferry::vfio
