// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "migration/channel.h"

namespace ferry::migration {
namespace {

using Family = TcpAddress::Family;

std::string error_text(std::string_view uri) {
    const auto parsed = parse_migration_uri(uri);
    return parsed ? "no error" : parsed.error().message();
}

TEST(ChannelAddress, RefusalsSayWhatQemuSays) {
    struct Row {
        std::string_view uri;
        std::string_view text;
    };
    constexpr Row kRows[] = {
        {"", "unknown migration protocol: "},
        {"/tmp/path", "unknown migration protocol: /tmp/path"},
        {"tcp:", "error parsing address ''"},
        {"tcp:host", "error parsing address 'host'"},
        {"tcp:host:", "error parsing address 'host:'"},
        {"tcp:a,b:1", "error parsing address 'a,b:1'"},
        {"tcp:::1:4444", "error parsing address '::1:4444'"},
        {"tcp:[::1]", "error parsing address '[::1]'"},
        {"tcp:[::1", "error parsing address '[::1'"},
        {"tcp:[]:1", "error parsing address '[]:1'"},
        {"tcp:h:99999",
         "error parsing address 'h:99999': port '99999' is not a number from 0 to 65535"},
        {"tcp:h:-1", "error parsing address 'h:-1': port '-1' is not a number from 0 to 65535"},
        {"tcp:h:1,", "error parsing address 'h:1,': bad option ''"},
        {"tcp:h:1,ipv4=yes", "error parsing address 'h:1,ipv4=yes': bad option 'ipv4=yes'"},
        {"tcp:h:1,to=70000", "error parsing address 'h:1,to=70000': bad option 'to=70000'"},
        {"tcp:h:1,ipv4=off,ipv6=off", "Cannot disable IPv4 and IPv6 at same time"},
        {"unix:", "invalid Unix socket address"},
        {"fd:", "invalid file descriptor address"},
        {"file:p,offset=", "file URI has bad offset : Invalid argument"},
        {"file:p,offset=x", "file URI has bad offset x: Invalid argument"},
        {"file:p,offset=-1", "file URI has bad offset -1: Invalid argument"},
        {"file:p,offset=0x10k", "file URI has bad offset 0x10k: Invalid argument"},
        {"file:p,offset=1kk", "file URI has bad offset 1kk: Invalid argument"},
        {"file:p,offset=1.5", "file URI has bad offset 1.5: Invalid argument"},
        {"file:p,offset=1.k", "file URI has bad offset 1.k: Invalid argument"},
        {"file:p,offset=16E", "file URI has bad offset 16E: Numerical result out of range"},
        {"file:p,offset=18446744073709551616",
         "file URI has bad offset 18446744073709551616: Numerical result out of range"},
    };
    for (const Row& row : kRows) {
        EXPECT_EQ(error_text(row.uri), row.text);
        EXPECT_EQ(parse_migration_uri(row.uri).error().kind(), ErrorKind::InvalidArgument);
    }
}

TEST(ChannelAddress, TransportsThatAreNotThereAreNamed) {
    const auto refused = [](std::string_view uri) {
        const auto parsed = parse_migration_uri(uri);
        EXPECT_FALSE(parsed) << uri;
        EXPECT_EQ(parsed.error().kind(), ErrorKind::Unsupported) << uri;
        return parsed.error().message();
    };
    EXPECT_EQ(refused("rdma:host:1"), "Migration over RDMA is not supported");
    EXPECT_EQ(refused("vsock:1:1"), "Migration over vsock is not supported");
    EXPECT_EQ(refused("tcp:h:1,mptcp"), "Parameter 'mptcp' is not supported");
    EXPECT_EQ(refused("tcp:h:1,mptcp=on"), "Parameter 'mptcp' is not supported");
    EXPECT_TRUE(parse_migration_uri("tcp:h:1,mptcp=off"));
}

TEST(ChannelAddress, NulByteIsRefused) {
    using namespace std::string_view_literals;
    EXPECT_EQ(error_text("file:/tmp/a\0b"sv), "migration address contains a NUL byte");
}

TEST(ChannelAddress, TcpFormsAreUnderstood) {
    struct Row {
        std::string_view uri;
        std::string_view host;
        std::string_view port;
        Family family = Family::Any;
    };
    constexpr Row kRows[] = {
        {"tcp:10.0.0.2:4444", "10.0.0.2", "4444"},
        {"tcp::4444", "", "4444"},
        {"tcp:[::1]:0", "::1", "0"},
        {"tcp:host.example:ferry", "host.example", "ferry"},
        {"tcp:h:1,ipv4", "h", "1", Family::Ipv4},
        {"tcp:h:1,ipv6=on", "h", "1", Family::Ipv6},
        {"tcp:h:1,ipv6=off", "h", "1", Family::Ipv4},
        {"tcp:h:1,ipv4=off", "h", "1", Family::Ipv6},
        {"tcp:h:1,ipv4=on,ipv6=on", "h", "1", Family::Any},
        {"tcp:h:1,ipv4=on,ipv6=off", "h", "1", Family::Ipv4},
    };
    for (const Row& row : kRows) {
        const auto parsed = parse_migration_uri(row.uri);
        ASSERT_TRUE(parsed) << row.uri;
        const auto& tcp = std::get<TcpAddress>(*parsed);
        EXPECT_EQ(tcp.host, row.host) << row.uri;
        EXPECT_EQ(tcp.port, row.port) << row.uri;
        EXPECT_EQ(tcp.family, row.family) << row.uri;
        EXPECT_FALSE(tcp.keep_alive);
        EXPECT_FALSE(tcp.last_port);
    }
}

TEST(ChannelAddress, PortRangeAndKeepAliveAreUnderstood) {
    const auto parsed = parse_migration_uri("tcp::4444,to=4500,keep-alive=on");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(std::get<TcpAddress>(*parsed).last_port, 4500);
    EXPECT_TRUE(std::get<TcpAddress>(*parsed).keep_alive);
}

TEST(ChannelAddress, FileOffsetsAreUnderstood) {
    struct Row {
        std::string_view uri;
        std::string_view path;
        uint64_t offset;
    };
    constexpr Row kRows[] = {
        {"file:/a/b", "/a/b", 0},
        {"file:/a,b", "/a,b", 0},
        {"file:/a,offset=0", "/a", 0},
        {"file:/a,offset=0010", "/a", 10},
        {"file:/a,offset=4096", "/a", 4096},
        {"file:/a,offset=0x1000", "/a", 4096},
        {"file:/a,offset=12B", "/a", 12},
        {"file:/a,offset=4k", "/a", 4096},
        {"file:/a,offset=1.5K", "/a", 1536},
        {"file:/a,offset=0.3M", "/a", 314572},
        {"file:/a,offset=2M", "/a", 2u << 20},
        {"file:/a,offset=18446744073709551615", "/a", UINT64_MAX},
    };
    for (const Row& row : kRows) {
        const auto parsed = parse_migration_uri(row.uri);
        ASSERT_TRUE(parsed) << row.uri;
        EXPECT_EQ(std::get<FileAddress>(*parsed).path, row.path) << row.uri;
        EXPECT_EQ(std::get<FileAddress>(*parsed).offset, row.offset) << row.uri;
    }
}

// "file:a,offset=1,offset=2" has the value "1,offset=2".
TEST(ChannelAddress, FirstOffsetOptionEndsThePath) {
    EXPECT_EQ(error_text("file:a,offset=1,offset=2"),
              "file URI has bad offset 1,offset=2: Invalid argument");
}

TEST(ChannelAddress, ExecRunsInTheShell) {
    const auto parsed = parse_migration_uri("exec:gzip -c > x");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(std::get<ExecAddress>(*parsed).args,
              (std::vector<std::string>{"/bin/sh", "-c", "gzip -c > x"}));
}

TEST(ChannelAddress, TextOfAnAddressParsesToTheSameAddress) {
    for (const std::string_view uri :
         {"tcp:10.0.0.2:4444", "tcp:[fe80::1]:1,ipv6", "tcp::0,to=9,ipv4,keep-alive",
          "unix:/run/x.sock", "fd:migration", "exec:cat > /tmp/x", "file:/tmp/x",
          "file:/tmp/x,offset=4096"}) {
        const auto parsed = parse_migration_uri(uri);
        ASSERT_TRUE(parsed) << uri;
        EXPECT_EQ(to_string(*parsed), uri);
    }
}

TEST(ChannelAddress, CommandWithoutShellIsNamedByItsWords) {
    EXPECT_EQ(to_string(ExecAddress{{"gzip", "-c"}}), "exec:gzip -c");
}

TEST(ChannelAddress, OnlySocketsTakeTimeToOpen) {
    EXPECT_FALSE(opens_at_once(TcpAddress{"h", "1"}));
    EXPECT_FALSE(opens_at_once(UnixAddress{"p"}));
    EXPECT_TRUE(opens_at_once(FdAddress{"n"}));
    EXPECT_TRUE(opens_at_once(ExecAddress{{"true"}}));
    EXPECT_TRUE(opens_at_once(FileAddress{"p"}));
}

}  // namespace
}  // namespace ferry::migration
