// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>

#include "util/result.h"
#include "util/try.h"

namespace ferry {
namespace {

Result<int> inner() {
    return make_errno(EBUSY, "ioctl({})", "SET");
}
Result<> outer() {
    MIG_TRY(const int value, inner(), "device {}", "0000:3b:00.2");
    (void)value;
    return {};
}

TEST(Error, PrintsContextsOutermostFirstAndTheErrnoLast) {
    auto result = outer();
    ASSERT_FALSE(result);
    const Error error = std::move(result).error().context("switchover");
    EXPECT_EQ(error.message(),
              "switchover: device 0000:3b:00.2: ioctl(SET): Device or resource busy");
    EXPECT_EQ(error.errnum(), EBUSY);
    EXPECT_EQ(error.kind(), ErrorKind::Syscall);
}

TEST(Error, LaterFailuresAreAttachedAndTheFirstStaysFirst) {
    Error error = make_error(ErrorKind::Protocol, "first");
    error.attach_in_place(make_error(ErrorKind::Internal, "second"));
    EXPECT_EQ(error.message(), "first (then: second)");
    EXPECT_EQ(error.kind(), ErrorKind::Protocol);
}

}  // namespace
}  // namespace ferry
