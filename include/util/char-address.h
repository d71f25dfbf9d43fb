// SPDX-License-Identifier: BSD-2-Clause
// Where the other end of a stream of characters is: of a serial port, a monitor, qtest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::util {

struct CharAddress {
    enum class Kind : uint8_t {
        Null,  // nobody
        Stdio,
        File,  // takes output only
        Unix,
        Tcp,
        Fd,  // a socket that the parent process left open
    } kind = Kind::Null;
    enum class Side : uint8_t { Connect, Listen } side = Side::Connect;
    enum class Wait : uint8_t { No, ForClient } wait = Wait::No;
    enum class Existing : uint8_t { Truncated, Kept } existing = Existing::Truncated;  // File
    std::string path;                                                                  // File, Unix
    std::string host, port;  // Tcp; an empty host is any address or localhost
    int fd = -1;             // Fd
};

// "null", "stdio", "file:PATH", "unix:PATH[,server=on][,wait=off]",
// "tcp:HOST:PORT[,server=on][,wait=off]"; ",," stands for a comma. A server waits unless told not
// to. QEMU's other kinds are refused by name.
Result<CharAddress> parse_char_address(std::string_view text);
// "unix:/run/console", for errors.
std::string to_string(const CharAddress& address);

// Unix and Tcp: a connected socket, or a listening one. May block (name resolution, connect).
// A socket that an earlier process left behind at the path is replaced, nothing else is.
Result<UniqueFd> open_char_socket(const CharAddress& address);
// Until somebody has connected: for Wait::ForClient.
Result<> wait_for_char_client(BorrowedFd listener);

}  // namespace ferry::util
