// SPDX-License-Identifier: BSD-2-Clause
// Channels over one non-blocking descriptor that can be polled: sockets, pipes, terminals.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "migration/channel-waker.h"
#include "migration/channel.h"
#include "util/unique-fd.h"

namespace ferry::migration {

// The moving of bytes, for channels to build on. At most one reading and one writing thread.
class PolledFd {
 public:
    enum class Type : uint8_t { Socket, Pipe };
    struct Parts {  // what can fail to be made
        UniqueFd fd;
        util::EventFd wake;
    };
    // Takes a descriptor of any origin: makes it non-blocking and close-on-exec.
    static Result<Parts> prepare(UniqueFd fd);
    PolledFd(Parts parts, Type type, std::string name);

    const std::string& name() const { return name_; }
    const Waker& waker() const { return waker_; }
    // `moved` grows by every byte as soon as it has gone.
    Result<size_t> read_some(MutBytes into, std::atomic<uint64_t>& moved);
    Result<> write_all(std::span<const ConstBytes> parts, std::atomic<uint64_t>& moved);
    // The peer sees the end of the stream. A pipe is closed; a socket can still be read.
    Result<> finish_writing();
    void shutdown(Error reason) noexcept;

 private:
    Error failure(std::string_view step, int errnum) const;
    Result<> check_usable() const;

    UniqueFd fd_;
    const Type type_;
    const std::string name_;
    Waker waker_;
    // A fifo nobody has opened for writing yet reads like one at its end: wait for the first byte.
    bool read_before_ = false;
    bool finished_ = false;
};

enum class Direction : uint8_t { ReadOnly, WriteOnly, Duplex };

Result<std::unique_ptr<MigrationChannel>> make_fd_channel(UniqueFd fd, PolledFd::Type type,
                                                          Direction direction, std::string name);
// A connected stream socket.
Result<std::unique_ptr<MigrationChannel>> make_socket_channel(UniqueFd fd, std::string name);

}  // namespace ferry::migration
