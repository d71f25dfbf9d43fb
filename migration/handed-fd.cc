// SPDX-License-Identifier: BSD-2-Clause
#include "migration/handed-fd.h"

#include <fcntl.h>

#include "util/try.h"

namespace ferry::migration {

Result<MakeChannel> from_handed_fd(const MigrationAddress& address, FdTable& fds, FdUse use) {
    if (const auto* named = std::get_if<FdAddress>(&address)) {
        MIG_TRY(UniqueFd fd, fds.take_fd(named->name));
        return MakeChannel([fd = std::move(fd), name = to_string(address), use]() mutable {
            return channel_from_fd(std::move(fd), name, use);
        });
    }
    const auto* file = std::get_if<FileAddress>(&address);
    if (file != nullptr && file->path.starts_with("/dev/fdset/")) {
        const int flags = use == FdUse::Outgoing ? O_WRONLY : O_RDONLY;
        MIG_TRY(UniqueFd fd, fds.open_fd_set(file->path, flags));
        return MakeChannel([fd = std::move(fd), where = *file, use]() mutable {
            return channel_from_file(std::move(fd), where, use);
        });
    }
    return MakeChannel();
}

}  // namespace ferry::migration
