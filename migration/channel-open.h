// SPDX-License-Identifier: BSD-2-Clause
// The openers behind connect_channel(), open_incoming_channel() and channel_from_fd(), one per
// transport.
#pragma once

#include <memory>
#include <string>

#include "migration/channel.h"

namespace ferry::migration {

// Blocks; `cancel` wakes it.
Result<std::unique_ptr<MigrationChannel>> connect_tcp(const TcpAddress& address,
                                                      const util::EventFd& cancel);
Result<std::unique_ptr<MigrationChannel>> connect_unix(const UnixAddress& address,
                                                       const util::EventFd& cancel);

// Outgoing: created and cut at the offset. A fifo or terminal is used as a stream.
Result<std::unique_ptr<MigrationChannel>> open_file_channel(const FileAddress& address, FdUse use);
// A file or block device that is open already; the stream begins where its position is.
Result<std::unique_ptr<MigrationChannel>> open_file_at_position(UniqueFd fd, FdUse use,
                                                                std::string name);

// Starts the command; the stream is its standard input (outgoing) or output (incoming).
Result<std::unique_ptr<MigrationChannel>> start_exec_channel(const ExecAddress& address, FdUse use);

}  // namespace ferry::migration
