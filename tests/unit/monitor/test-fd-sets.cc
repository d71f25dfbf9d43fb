// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <gtest/gtest.h>

#include "monitor/fd-sets.h"
#include "util/syscall.h"

namespace ferry::monitor {
namespace {

UniqueFd opened(int flags) {
    return std::move(*util::open_file("/dev/null", flags));
}
std::string why(const Result<UniqueFd>& result) {
    return result ? "opened" : result.error().message();
}

TEST(FdSets, LowestFreeNumberIsTakenWithoutOne) {
    FdSets sets;
    EXPECT_EQ(sets.add(opened(O_RDONLY), std::nullopt, std::nullopt)->set, 0);
    EXPECT_EQ(sets.add(opened(O_RDONLY), 1, std::nullopt)->set, 1);
    EXPECT_EQ(sets.add(opened(O_RDONLY), std::nullopt, std::nullopt)->set, 2);
    EXPECT_FALSE(sets.add(opened(O_RDONLY), -1, std::nullopt));
}

TEST(FdSets, MemberWithTheSameAccessIsDuplicated) {
    FdSets sets;
    ASSERT_TRUE(sets.add(opened(O_RDONLY), 7, "reader"));
    const auto writer = sets.add(opened(O_WRONLY), 7, "writer");
    ASSERT_TRUE(writer);
    const auto fd = sets.open("/dev/fdset/7", O_WRONLY);
    ASSERT_TRUE(fd);
    EXPECT_NE(fd->raw(), writer->fd);
    EXPECT_EQ(::fcntl(fd->raw(), F_GETFL) & O_ACCMODE, O_WRONLY);
    EXPECT_NE(why(sets.open("/dev/fdset/7", O_RDWR)).find("matching flags"), std::string::npos);
    EXPECT_NE(why(sets.open("/dev/fdset/8", O_RDONLY)).find("/dev/fdset/8"), std::string::npos);
    for (const char* bad : {"/dev/fdset/", "/dev/fdset/x", "/dev/fdset/7x", "/dev/fdset/-1"}) {
        EXPECT_FALSE(sets.open(bad, O_RDONLY)) << bad;
    }
}

TEST(FdSets, RemovedMemberIsClosedAndAnEmptySetIsGone) {
    FdSets sets;
    const auto one = sets.add(opened(O_RDONLY), 3, std::nullopt);
    ASSERT_TRUE(sets.add(opened(O_WRONLY), 3, std::nullopt));
    ASSERT_TRUE(sets.remove(3, one->fd));
    EXPECT_EQ(::fcntl(one->fd, F_GETFD), -1);
    EXPECT_EQ(sets.remove(3, one->fd).error().message(),
              "File descriptor named 'fdset-id:3, fd:" + std::to_string(one->fd) + "' not found");
    ASSERT_TRUE(sets.remove(3, std::nullopt));
    EXPECT_TRUE(sets.all().empty());
    EXPECT_EQ(sets.remove(3, std::nullopt).error().message(),
              "File descriptor named 'fdset-id:3' not found");
    EXPECT_FALSE(sets.remove(3, int64_t{1} << 40));
}

TEST(FdSets, GoWithTheLastClient) {
    FdSets sets;
    auto first = sets.client();
    auto second = sets.client();
    ASSERT_TRUE(sets.add(opened(O_RDONLY), 0, std::nullopt));
    first.reset();
    EXPECT_EQ(sets.all().size(), 1U);
    second.reset();
    EXPECT_TRUE(sets.all().empty());
}

}  // namespace
}  // namespace ferry::monitor
