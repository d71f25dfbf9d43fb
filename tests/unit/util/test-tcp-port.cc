// SPDX-License-Identifier: BSD-2-Clause
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "util/tcp-port.h"

namespace ferry::util {
namespace {

TEST(TcpPort, WhatIsNoPortIsRefusedWithItsText) {
    for (const std::string_view text :
         {"65536", "99999", "-1", "+1", " 1", "1 ", "", "18446744073709551617"}) {
        const auto checked = check_tcp_port(text);
        ASSERT_FALSE(checked) << text;
        EXPECT_NE(checked.error().message().find(fmt::format("'{}'", text)), std::string::npos);
    }
}

TEST(TcpPort, NumbersAndNamesOfServices) {
    for (const std::string_view text : {"0", "1", "65535", "http", "9pfs"}) {
        EXPECT_TRUE(check_tcp_port(text)) << text;
    }
}

}  // namespace
}  // namespace ferry::util
