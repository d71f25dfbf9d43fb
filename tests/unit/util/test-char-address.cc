// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <string>

#include "util/char-address.h"

namespace ferry::util {
namespace {

using Kind = CharAddress::Kind;
using Side = CharAddress::Side;
using Wait = CharAddress::Wait;

TEST(CharAddress, KindsWithoutOptions) {
    EXPECT_EQ(parse_char_address("null")->kind, Kind::Null);
    EXPECT_EQ(parse_char_address("stdio")->kind, Kind::Stdio);
}

TEST(CharAddress, AFilesNameGoesToTheEnd) {
    const auto address = parse_char_address("file:/tmp/a,b=c:d");
    ASSERT_TRUE(address);
    EXPECT_EQ(address->kind, Kind::File);
    EXPECT_EQ(address->path, "/tmp/a,b=c:d");
}

struct SocketCase {
    const char* text;
    Kind kind;
    const char* path;
    const char* host;
    const char* port;
    Side side;
    Wait wait;
};

TEST(CharAddress, Sockets) {
    const SocketCase cases[] = {
        {"unix:/s", Kind::Unix, "/s", "", "", Side::Connect, Wait::No},
        {"unix:/s,server=on", Kind::Unix, "/s", "", "", Side::Listen, Wait::ForClient},
        {"unix:/s,server=on,wait=off", Kind::Unix, "/s", "", "", Side::Listen, Wait::No},
        {"unix:/s,wait=off,server", Kind::Unix, "/s", "", "", Side::Listen, Wait::No},
        {"unix:/s,server,nowait", Kind::Unix, "/s", "", "", Side::Listen, Wait::No},
        {"unix:/a,,b,server=off", Kind::Unix, "/a,b", "", "", Side::Connect, Wait::No},
        {"tcp:host:4444", Kind::Tcp, "", "host", "4444", Side::Connect, Wait::No},
        {"tcp::4444,server=on,nodelay=on", Kind::Tcp, "", "", "4444", Side::Listen,
         Wait::ForClient},
        {"tcp:[::1]:22", Kind::Tcp, "", "::1", "22", Side::Connect, Wait::No},
    };
    for (const SocketCase& c : cases) {
        const auto address = parse_char_address(c.text);
        ASSERT_TRUE(address) << c.text;
        EXPECT_EQ(address->kind, c.kind) << c.text;
        EXPECT_EQ(address->path, c.path) << c.text;
        EXPECT_EQ(address->host, c.host) << c.text;
        EXPECT_EQ(address->port, c.port) << c.text;
        EXPECT_EQ(address->side, c.side) << c.text;
        EXPECT_EQ(address->wait, c.wait) << c.text;
    }
}

TEST(CharAddress, WhatIsWrongIsNamed) {
    const std::pair<const char*, const char*> cases[] = {
        {"", "'': not one of null, stdio"},
        {"pty", "'pty': not one of null, stdio"},
        {"none", "'none': not one of"},
        {"stdio,signal=off", "not one of"},
        {"file:", "'file:': a file has a name"},
        {"unix:", "'unix:': UNIX socket path '' must have 1 to 107 bytes"},
        {"unix:/s,reconnect=1", "'unix:/s,reconnect=1': Invalid parameter 'reconnect=1'"},
        {"unix:/s,server=maybe", "Invalid parameter 'server=maybe'"},
        {"unix:/s,", "Invalid parameter ''"},
        {"unix:/s,wait=off", "'wait' option is incompatible with socket in client connect mode"},
        {"tcp:4444", "'4444' is not HOST:PORT"},
        {"tcp:host:", "'host:' is not HOST:PORT"},
    };
    for (const auto& [text, wanted] : cases) {
        const auto address = parse_char_address(text);
        ASSERT_FALSE(address) << text;
        EXPECT_NE(address.error().message().find(wanted), std::string::npos)
            << address.error().message();
    }
    EXPECT_FALSE(parse_char_address("unix:/" + std::string(107, 'x')));
    EXPECT_TRUE(parse_char_address("unix:/" + std::string(106, 'x')));
}

}  // namespace
}  // namespace ferry::util
