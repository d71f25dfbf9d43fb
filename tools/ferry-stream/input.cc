// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/input.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {

constexpr size_t kCopyBytes = 256 * 1024;
constexpr size_t kReadBytes = 64 * 1024;

// Has no name, so that nothing is left behind however this process ends.
Result<UniqueFd> make_spool_file() {
    const char* const chosen = ::getenv("TMPDIR");
    std::string pattern = chosen != nullptr && *chosen != '\0' ? chosen : "/tmp";
    pattern += "/ferry-stream-XXXXXX";
    MIG_TRY(const int raw,
            util::check_call(::mkostemp(pattern.data(), O_CLOEXEC), "mkostemp(" + pattern + ")"),
            "keeping what comes through a pipe; TMPDIR chooses another folder");
    UniqueFd fd(raw);
    MIG_CHECK(util::check_call(::unlink(pattern.c_str()), "unlink(" + pattern + ")"));
    return fd;
}

struct Spooled {
    UniqueFd fd;
    uint64_t size = 0;
};

Result<Spooled> spool(BorrowedFd from, const std::string& name, uint64_t skip, uint64_t limit) {
    Spooled spooled;
    MIG_TRY(spooled.fd, make_spool_file());
    std::vector<std::byte> buffer(kCopyBytes);
    for (;;) {
        MIG_TRY(const size_t got, util::read_fd(from, buffer, "read(" + name + ")"));
        if (got == 0) return spooled;
        const auto skipped = static_cast<size_t>(std::min<uint64_t>(skip, got));
        skip -= skipped;
        const ConstBytes keep = ConstBytes(buffer).subspan(skipped, got - skipped);
        if (keep.size() > limit - spooled.size) {
            return make_error(ErrorKind::LimitExceeded,
                              "{}: more than {} bytes come through this pipe; store the stream in "
                              "a file and name that",
                              name, limit);
        }
        MIG_CHECK(
            util::pwrite_all(spooled.fd.borrow(), keep, spooled.size, "pwrite(temporary file)"),
            "keeping what comes through a pipe; TMPDIR chooses another folder");
        spooled.size += keep.size();
    }
}

Result<uint64_t> size_of_file(BorrowedFd fd, const std::string& name, const struct stat& info) {
    if (S_ISREG(info.st_mode)) return static_cast<uint64_t>(info.st_size);
    const off_t end = ::lseek(fd.raw(), 0, SEEK_END);
    if (end == -1) return util::errno_error("lseek(" + name + ")");
    return static_cast<uint64_t>(end);
}

}  // namespace

Result<Input> Input::from_fd(UniqueFd fd, std::string name, uint64_t skip, uint64_t max_spool) {
    struct stat info{};
    MIG_CHECK(util::check_call(::fstat(fd.raw(), &info), "fstat(" + name + ")"));
    if (S_ISDIR(info.st_mode)) return make_errno(EISDIR, "{}", name);
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
        MIG_TRY(Spooled spooled, spool(fd.borrow(), name, skip, max_spool));
        return Input(std::move(spooled.fd), std::move(name), 0, spooled.size);
    }
    const off_t here = ::lseek(fd.raw(), 0, SEEK_CUR);
    if (here == -1) return util::errno_error("lseek(" + name + ")");
    MIG_TRY(const uint64_t end, size_of_file(fd.borrow(), name, info));
    const uint64_t stands = std::min(static_cast<uint64_t>(here), end);
    if (skip > end - stands) {
        return make_error(ErrorKind::InvalidArgument, "{}: has {} bytes only, {} are to be skipped",
                          name, end - stands, skip);
    }
    const uint64_t begin = stands + skip;
    return Input(std::move(fd), std::move(name), begin, end - begin);
}

Result<Input> Input::open(const std::string& path, uint64_t skip, uint64_t max_spool) {
    if (path == "-") {
        MIG_TRY(UniqueFd fd, util::duplicate(BorrowedFd(STDIN_FILENO)), "standard input");
        return from_fd(std::move(fd), "standard input", skip, max_spool);
    }
    MIG_TRY(UniqueFd fd, util::open_file(path, O_RDONLY | O_NOCTTY));
    return from_fd(std::move(fd), path, skip, max_spool);
}

Result<size_t> Input::read_at(uint64_t offset, MutBytes into) const {
    if (offset >= size_) return 0;
    const MutBytes part = into.first(std::min<uint64_t>(into.size(), size_ - offset));
    MIG_CHECK(util::pread_all(fd_.borrow(), part, begin_ + offset, "pread(" + name_ + ")"));
    return part.size();
}

Result<bool> Input::is_same_file(BorrowedFd other) const {
    struct stat mine{};
    struct stat theirs{};
    MIG_CHECK(util::check_call(::fstat(fd_.raw(), &mine), "fstat(" + name_ + ")"));
    MIG_CHECK(util::check_call(::fstat(other.raw(), &theirs), "fstat"));
    return mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
}

// --- Cursor

class Cursor::Source final : public migration::ByteSource {
 public:
    Source(const Input& input, uint64_t at) : input_(input), at_(at) {}
    Result<size_t> read_some(MutBytes into) override {
        const MutBytes slice = into.first(std::min(into.size(), kReadBytes));
        MIG_TRY(const size_t got, input_.read_at(at_, slice));
        at_ += got;
        return got;
    }

 private:
    const Input& input_;
    uint64_t at_;
};

Cursor::Cursor(const Input& input) : input_(input) {
    seek(0);
}

void Cursor::seek(uint64_t offset) {
    base_ = offset;
    source_ = std::make_unique<Source>(input_, offset);
    stream_ = std::make_unique<migration::LoadStream>(*source_, kReadBytes);
}

uint64_t Cursor::remaining() const {
    const uint64_t at = position();
    return at < input_.size() ? input_.size() - at : 0;
}

Result<> Cursor::skip(uint64_t count) {
    if (count > remaining()) {
        return make_error(ErrorKind::PeerClosed,
                          "the stream ends at byte {:#x}: {} of {} bytes are missing",
                          input_.size(), count - remaining(), count);
    }
    // Far away it is cheaper to begin anew than to read what lies between.
    constexpr uint64_t kFar = 1 << 20;
    if (count < kFar) return stream_->skip(count);
    seek(position() + count);
    return {};
}

}  // namespace ferry::stream_tool
