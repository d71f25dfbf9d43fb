// SPDX-License-Identifier: BSD-2-Clause
// Which opener an address or descriptor needs.
#include "migration/channel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/channel-fd.h"
#include "migration/channel-open.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

using OpenedChannel = Result<std::unique_ptr<MigrationChannel>>;

Error unresolved(const FdAddress& address) {
    return make_error(ErrorKind::Internal, "fd:{} was not resolved to a descriptor", address.name);
}

struct Connect {
    const util::EventFd& cancel;
    OpenedChannel operator()(const TcpAddress& address) const {
        return connect_tcp(address, cancel);
    }
    OpenedChannel operator()(const UnixAddress& address) const {
        return connect_unix(address, cancel);
    }
    OpenedChannel operator()(const FdAddress& address) const { return unresolved(address); }
    OpenedChannel operator()(const ExecAddress& address) const {
        return start_exec_channel(address, FdUse::Outgoing);
    }
    OpenedChannel operator()(const FileAddress& address) const {
        return open_file_channel(address, FdUse::Outgoing);
    }
};

struct OpenIncoming {
    OpenedChannel operator()(const TcpAddress& address) const { return listens(address); }
    OpenedChannel operator()(const UnixAddress& address) const { return listens(address); }
    OpenedChannel operator()(const FdAddress& address) const { return unresolved(address); }
    OpenedChannel operator()(const ExecAddress& address) const {
        return start_exec_channel(address, FdUse::Incoming);
    }
    OpenedChannel operator()(const FileAddress& address) const {
        return open_file_channel(address, FdUse::Incoming);
    }

 private:
    static Error listens(const MigrationAddress& address) {
        return make_error(ErrorKind::Internal, "{} needs a listener", to_string(address));
    }
};

Result<int> socket_option(BorrowedFd fd, int option) {
    int value = 0;
    socklen_t length = sizeof(value);
    MIG_CHECK(util::check_call(::getsockopt(fd.raw(), SOL_SOCKET, option, &value, &length),
                               "getsockopt"));
    return value;
}

OpenedChannel channel_from_socket(UniqueFd fd, std::string name) {
    MIG_TRY(const int type, socket_option(fd.borrow(), SO_TYPE), "{}", name);
    if (type != SOCK_STREAM) {
        return make_error(ErrorKind::InvalidArgument, "{}: not a stream socket", name);
    }
    MIG_TRY(const int listening, socket_option(fd.borrow(), SO_ACCEPTCONN), "{}", name);
    if (listening != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: a listening socket; a connected one is needed", name);
    }
    return make_socket_channel(std::move(fd), std::move(name));
}

// The opposite use of a one-way descriptor would only fail in the middle of the migration.
Result<> check_access(BorrowedFd fd, FdUse use, const std::string& name) {
    MIG_TRY(const int flags, util::check_call(::fcntl(fd.raw(), F_GETFL), "fcntl(F_GETFL)"), "{}",
            name);
    const int access = flags & O_ACCMODE;
    if (access == O_RDWR || access == (use == FdUse::Outgoing ? O_WRONLY : O_RDONLY)) return {};
    return make_error(ErrorKind::InvalidArgument, "{}: not open for {}", name,
                      use == FdUse::Outgoing ? "writing" : "reading");
}

}  // namespace

OpenedChannel connect_channel(const MigrationAddress& address, const util::EventFd& cancel) {
    return std::visit(Connect{cancel}, address);
}

OpenedChannel open_incoming_channel(const MigrationAddress& address) {
    return std::visit(OpenIncoming(), address);
}

OpenedChannel channel_from_fd(UniqueFd fd, std::string name, FdUse use) {
    struct stat info{};
    MIG_CHECK(util::check_call(::fstat(fd.raw(), &info), "fstat"), "{}", name);
    if (S_ISSOCK(info.st_mode)) return channel_from_socket(std::move(fd), std::move(name));
    MIG_CHECK(check_access(fd.borrow(), use, name));
    if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
        return make_fd_channel(std::move(fd), PolledFd::Type::Pipe,
                               use == FdUse::Outgoing ? Direction::WriteOnly : Direction::ReadOnly,
                               std::move(name));
    }
    if (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)) {
        MIG_CHECK(util::check_call(::fcntl(fd.raw(), F_SETFD, FD_CLOEXEC), "fcntl(F_SETFD)"), "{}",
                  name);
        return open_file_at_position(std::move(fd), use, std::move(name));
    }
    return make_error(ErrorKind::InvalidArgument, "{}: neither socket, pipe nor file", name);
}

}  // namespace ferry::migration
