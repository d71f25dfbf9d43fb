// SPDX-License-Identifier: BSD-2-Clause
// Sockets that listen.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "migration/channel.h"
#include "util/unique-fd.h"

namespace ferry::migration {

// A path in the file system that is ours while it is the same file.
class SocketPath {
 public:
    SocketPath() = default;
    static Result<SocketPath> remember(std::string path);
    // Removes the path, unless somebody has replaced it.
    void remove() const noexcept;

 private:
    std::string path_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

// Non-blocking. Destroying it leaves the path alone: that is the owner's to remove.
struct ListeningSockets {
    std::vector<UniqueFd> sockets;
    MigrationAddress address;  // with the real port; of the first socket
    SocketPath path;           // unix: only
};

// One socket per address that the host's name stands for, all with one port. Asks name servers
// when the host is a name.
Result<ListeningSockets> listen_tcp(const TcpAddress& wanted);
// A path that nobody listens on is replaced; a file of another kind is not.
Result<ListeningSockets> listen_unix(const UnixAddress& wanted);

}  // namespace ferry::migration
