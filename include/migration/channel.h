// SPDX-License-Identifier: BSD-2-Clause
// MigrationChannel: one ordered byte channel of a migration. Addresses and how to open them.
// Docs: docs/devel/channels.rst.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "system/main-loop.h"
#include "util/bytes.h"
#include "util/event-fd.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::migration {

// Where SaveStream writes to. All parts in order, or an Error.
class ByteSink {
 public:
    virtual ~ByteSink() = default;
    virtual Result<> write_all(std::span<const ConstBytes> parts) = 0;
};

// Where LoadStream reads from. Blocks until at least one byte is there; 0 only at the orderly end.
class ByteSource {
 public:
    virtual ~ByteSource() = default;
    virtual Result<size_t> read_some(MutBytes into) = 0;
};

// At most one reading and one writing thread; shutdown(), name() and the counters from any thread.
class MigrationChannel : public ByteSink, public ByteSource {
 public:
    // Who has the bytes once they are written.
    enum class Taker : uint8_t {
        Peer,     // another process, which may run the VM
        Command,  // one that we started, which may pass them on to such a process
        Nobody,   // they lie in a file
    };
    struct Features {
        bool duplex = false;  // a return path can use the same channel
        Taker taker = Taker::Peer;
    };
    // Closes; neither flushes nor blocks.
    ~MigrationChannel() override = default;
    virtual std::string_view name() const = 0;  // "tcp:10.0.0.2:4444", for errors and traces
    virtual Features features() const = 0;
    // No more writes: the peer sees the end of the stream. Errors that only show up at the end
    // (a child that failed) are returned here.
    virtual Result<> finish_writing() = 0;
    // Idempotent: blocked calls and all later ones return `reason`.
    virtual void shutdown(Error reason) noexcept = 0;

    // For the watch over silent peers: bytes that really moved so far.
    uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
    uint64_t bytes_written() const { return bytes_written_.load(std::memory_order_relaxed); }

 protected:
    std::atomic<uint64_t> bytes_read_ = 0;
    std::atomic<uint64_t> bytes_written_ = 0;
};

// Two ends in one process. What one writes the other reads; a bounded buffer lies between.
std::pair<std::unique_ptr<MigrationChannel>, std::unique_ptr<MigrationChannel>>
make_memory_channel_pair(const std::string& name = "memory");

struct TcpAddress {
    std::string host;  // empty: any address (listen), localhost (connect)
    std::string port;  // text; "0" lets the kernel choose (listen)
    enum class Family : uint8_t { Any, Ipv4, Ipv6 } family = Family::Any;
    std::optional<uint16_t> last_port = std::nullopt;  // listen: first free one of port..this
    bool keep_alive = false;                           // TCP keep-alive probes
};
struct UnixAddress {
    std::string path;  // in the file system, or an abstract name
    // Padded: with zero bytes to the full length, which makes it another name.
    enum class Space : uint8_t { Files, Abstract, AbstractPadded } space = Space::Files;
    bool is_abstract() const { return space != Space::Files; }
};
struct FdAddress {
    std::string name;  // given by getfd, or the number of an inherited descriptor (incoming only)
};
struct ExecAddress {
    std::vector<std::string> args;  // argv, no shell added
};
struct FileAddress {
    std::string path;
    uint64_t offset = 0;
};
using MigrationAddress = std::variant<TcpAddress, UnixAddress, FdAddress, ExecAddress, FileAddress>;

// "tcp:HOST:PORT[,to=N][,ipv4][,ipv6][,keep-alive]", "unix:PATH", "fd:NAME", "exec:COMMAND",
// "file:PATH[,offset=N]" with QEMU's rules and error texts (docs/interop/qmp-reference.rst,
// addresses).
Result<MigrationAddress> parse_migration_uri(std::string_view uri);
std::string to_string(const MigrationAddress& address);

// The descriptors that a management program handed over. Main loop thread.
class FdTable {
 public:
    virtual ~FdTable() = default;
    virtual Result<UniqueFd> take_fd(std::string_view name) = 0;  // removes it
    // A duplicate of the member of a set ("/dev/fdset/N") that was opened with these O_* flags.
    virtual Result<UniqueFd> open_fd_set(std::string_view path, int flags) = 0;
};

// True when opening takes no network round trip, so that failure can be the command's reply.
bool opens_at_once(const MigrationAddress& address);

// Opens the source's end. May block (name resolution, connect); `cancel` wakes it from any thread.
// An FdAddress must have been resolved before: pass the descriptor to channel_from_fd().
Result<std::unique_ptr<MigrationChannel>> connect_channel(const MigrationAddress& address,
                                                          const util::EventFd& cancel);
enum class FdUse : uint8_t { Outgoing, Incoming };
// Socket (duplex), pipe or file. Takes the descriptor.
Result<std::unique_ptr<MigrationChannel>> channel_from_fd(UniqueFd fd, std::string name, FdUse use);
// A file that is open already, used as FileAddress says; `address.path` is for messages.
Result<std::unique_ptr<MigrationChannel>> channel_from_file(UniqueFd fd, const FileAddress& address,
                                                            FdUse use);
// The destination's end of exec: and file:.
Result<std::unique_ptr<MigrationChannel>> open_incoming_channel(const MigrationAddress& address);

// A listening socket (tcp:, unix:). Main loop thread.
class ChannelListener {
 public:
    using Accepted = std::function<void(std::unique_ptr<MigrationChannel>)>;
    // An existing unix path is replaced when nobody listens on it.
    static Result<std::unique_ptr<ChannelListener>> create(const MigrationAddress& address,
                                                           system::MainLoop& loop,
                                                           Accepted accepted);
    virtual ~ChannelListener() = default;  // stops listening, removes the unix path
    // With the real port.
    virtual MigrationAddress address() const = 0;
};

}  // namespace ferry::migration
