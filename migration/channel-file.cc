// SPDX-License-Identifier: BSD-2-Clause
// The stream in a file or block device. Such a descriptor is always "ready" to poll, so calls move
// bounded slices, and a wake-up takes effect between two of them.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <limits>
#include <optional>

#include "migration/channel-fd.h"
#include "migration/channel-open.h"
#include "migration/channel-syscall.h"
#include "migration/channel.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr size_t kSliceBytes = size_t{16} << 20;  // a tenth of a second on a slow disk
constexpr uint64_t kMaxOffset = std::numeric_limits<off_t>::max();

class FileChannel final : public MigrationChannel {
 public:
    FileChannel(UniqueFd fd, FdUse use, uint64_t position, std::string name)
        : fd_(std::move(fd)), use_(use), position_(position), name_(std::move(name)) {}

    std::string_view name() const override { return name_; }
    Features features() const override { return {.taker = Taker::Nobody}; }
    Result<size_t> read_some(MutBytes into) override;
    Result<> write_all(std::span<const ConstBytes> parts) override;
    Result<> finish_writing() override;
    void shutdown(Error reason) noexcept override {
        const std::lock_guard lock(mutex_);
        if (!reason_) reason_ = std::move(reason);
    }

 private:
    Result<> check() const {
        const std::lock_guard lock(mutex_);
        if (reason_) return *reason_;
        return {};
    }

    const UniqueFd fd_;
    const FdUse use_;
    uint64_t position_;  // where the next byte goes or comes from
    bool finished_ = false;
    const std::string name_;
    mutable std::mutex mutex_;
    std::optional<Error> reason_;  // by mutex_
};

Result<size_t> FileChannel::read_some(MutBytes into) {
    assert(!into.empty());
    MIG_CHECK(check());
    if (use_ != FdUse::Incoming) {
        return make_error(ErrorKind::InvalidState, "{}: open for writing only", name_);
    }
    const MutBytes slice = into.first(std::min(into.size(), kSliceBytes));
    const Moved got = read_at(fd_.borrow(), slice, position_);
    if (got.errnum != 0) return transfer_error(name_, "reading", got.errnum);
    position_ += got.bytes;
    bytes_read_.fetch_add(got.bytes, std::memory_order_relaxed);
    return got.bytes;
}

Result<> FileChannel::write_all(std::span<const ConstBytes> parts) {
    MIG_CHECK(check());
    if (use_ != FdUse::Outgoing) {
        return make_error(ErrorKind::InvalidState, "{}: open for reading only", name_);
    }
    if (finished_) {
        return make_error(ErrorKind::InvalidState, "{}: writing after the end", name_);
    }
    SignalShield shield(SIGXFSZ);  // the limit on the size of files
    std::array<iovec, PartsCursor::kBatch> room;
    PartsCursor cursor(parts);
    while (!cursor.done()) {
        MIG_CHECK(check());
        const Moved put = write_at(fd_.borrow(), cursor.next(room, kSliceBytes), position_);
        if (put.errnum != 0) {
            if (put.errnum == EFBIG) shield.absorb();
            return transfer_error(name_, "writing", put.errnum);
        }
        if (put.bytes == 0) return transfer_error(name_, "writing", ENOSPC);
        position_ += put.bytes;
        bytes_written_.fetch_add(put.bytes, std::memory_order_relaxed);
        cursor.advance(put.bytes);
    }
    return {};
}

// A write that the kernel only took into its cache may fail later, and the VM is gone by then:
// a saved VM is on the disk before anybody says so. Waits for one slice after another, so that it
// can be woken.
Result<> FileChannel::finish_writing() {
    MIG_CHECK(check());
    if (use_ != FdUse::Outgoing || finished_) return {};
    finished_ = true;
    const uint64_t begin = position_ - bytes_written();
    for (uint64_t at = begin; at < position_; at += kSliceBytes) {
        MIG_CHECK(check());
        constexpr unsigned kWriteAndWait =
            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
        MIG_CHECK(util::check_call(::sync_file_range(fd_.raw(), static_cast<off_t>(at), kSliceBytes,
                                                     kWriteAndWait),
                                   "sync_file_range"),
                  "{}: writing to the disk", name_);
    }
    MIG_CHECK(util::check_call(::fdatasync(fd_.raw()), "fdatasync"), "{}: writing to the disk",
              name_);
    // Whoever gave us the descriptor finds it behind the stream.
    MIG_CHECK(
        util::check_call(::lseek(fd_.raw(), static_cast<off_t>(position_), SEEK_SET), "lseek"),
        "{}", name_);
    return {};
}

std::unique_ptr<MigrationChannel> make_file_channel(UniqueFd fd, FdUse use, uint64_t position,
                                                    std::string name) {
    return std::make_unique<FileChannel>(std::move(fd), use, position, std::move(name));
}

// Opening must not wait either, hence O_NONBLOCK: it matters for a fifo only.
Result<UniqueFd> open_path(const std::string& path, FdUse use) {
    const int flags = use == FdUse::Outgoing ? O_CREAT | O_WRONLY : O_RDONLY;
    auto fd = util::open_file(path, flags | O_NONBLOCK | O_NOCTTY);
    if (fd) return fd;
    const int errnum = fd.error().errnum();
    if (use == FdUse::Incoming) return make_errno(errnum, "Could not open '{}'", path);
    if (errnum == ENXIO) {
        return make_errno(errnum, "Could not open '{}': a fifo needs its reader first", path);
    }
    return make_errno(errnum, "Could not create '{}'", path);
}

}  // namespace

Result<std::unique_ptr<MigrationChannel>> open_file_at_position(UniqueFd fd, FdUse use,
                                                                std::string name) {
    const off_t position = ::lseek(fd.raw(), 0, SEEK_CUR);
    if (position == -1) return util::errno_error("lseek").context(name);
    return make_file_channel(std::move(fd), use, static_cast<uint64_t>(position), std::move(name));
}

Result<std::unique_ptr<MigrationChannel>> open_file_channel(const FileAddress& address, FdUse use) {
    const std::string name = to_string(address);
    if (address.offset > kMaxOffset) {
        return Error(ErrorKind::InvalidArgument, fmt::format("{}: offset too large", name), EINVAL);
    }
    MIG_TRY(UniqueFd fd, open_path(address.path, use));
    return channel_from_file(std::move(fd), address, use);
}

Result<std::unique_ptr<MigrationChannel>> channel_from_file(UniqueFd fd, const FileAddress& address,
                                                            FdUse use) {
    const std::string name = to_string(address);
    struct stat info{};
    MIG_CHECK(util::check_call(::fstat(fd.raw(), &info), "fstat"), "{}", name);
    if (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)) {
        if (use == FdUse::Outgoing && S_ISREG(info.st_mode)) {
            MIG_CHECK(util::check_call(::ftruncate(fd.raw(), static_cast<off_t>(address.offset)),
                                       "ftruncate"),
                      "{}", name);
        }
        return make_file_channel(std::move(fd), use, address.offset, name);
    }
    if (S_ISDIR(info.st_mode)) return make_errno(EISDIR, "Could not open '{}'", address.path);
    if (address.offset != 0) return make_errno(ESPIPE, "{}: not a file with offsets", name);
    return make_fd_channel(std::move(fd), PolledFd::Type::Pipe,
                           use == FdUse::Outgoing ? Direction::WriteOnly : Direction::ReadOnly,
                           name);
}

}  // namespace ferry::migration
