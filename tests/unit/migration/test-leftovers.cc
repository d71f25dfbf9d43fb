// SPDX-License-Identifier: BSD-2-Clause
// The check of the check: what an attempt could leave behind is seen.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <latch>
#include <thread>

#include "tests/support/leftovers.h"
#include "util/event-fd.h"
#include "util/mapped-region.h"

namespace ferry::test {
namespace {

TEST(Leftovers, NothingIsLeftWhereNothingHappened) {
    const Leftovers before;
    EXPECT_EQ(before.since(), "");
}

TEST(Leftovers, DescriptorIsSeenUntilItIsClosed) {
    const Leftovers before;
    {
        const auto fd = *util::EventFd::create();
        EXPECT_EQ(before.difference(), "fd anon_inode:[eventfd]: 0 before, 1 now; ");
    }
    EXPECT_EQ(before.since(), "");
}

TEST(Leftovers, ThreadIsSeenUntilItEnds) {
    std::jthread([] {}).join();  // a sanitizer starts one of its own with the first
    const Leftovers before;
    {
        std::latch seen(1);
        const std::jthread thread([&] { seen.wait(); });
        EXPECT_TRUE(before.difference().starts_with("threads: ")) << before.difference();
        seen.count_down();
    }
    EXPECT_EQ(before.since(), "");
}

TEST(Leftovers, MappingIsSeenWithoutItsDescriptor) {
    const Leftovers before;
    {
        UniqueFd fd(::memfd_create("left", MFD_CLOEXEC));
        ASSERT_EQ(::ftruncate(fd.raw(), 8192), 0);
        const auto region = *util::MappedRegion::map(fd.borrow(), 0, 8192, "left");
        fd.reset();
        EXPECT_EQ(before.difference(), "mapping /memfd:left (deleted): 0 before, 8192 now; ");
    }
    EXPECT_EQ(before.since(), "");
}

}  // namespace
}  // namespace ferry::test
