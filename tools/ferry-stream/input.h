// SPDX-License-Identifier: BSD-2-Clause
// The stream's bytes, at any offset: a file, or a pipe kept in an unnamed temporary file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "migration/stream.h"
#include "util/unique-fd.h"

namespace ferry::stream_tool {

class Input {
 public:
    // "-" is the standard input. The stream begins `skip` bytes behind the file's beginning (or
    // the place where the standard input stands). A pipe of more than `max_spool` bytes is refused.
    static Result<Input> open(const std::string& path, uint64_t skip, uint64_t max_spool);
    static Result<Input> from_fd(UniqueFd fd, std::string name, uint64_t skip, uint64_t max_spool);

    const std::string& name() const { return name_; }
    uint64_t size() const { return size_; }  // of the stream, with whatever lies behind it
    // At most what is there; offsets count from the stream's first byte.
    Result<size_t> read_at(uint64_t offset, MutBytes into) const;
    // Whether a file is the same one: writing it would destroy what is read.
    Result<bool> is_same_file(BorrowedFd other) const;

 private:
    Input(UniqueFd fd, std::string name, uint64_t begin, uint64_t size)
        : fd_(std::move(fd)), name_(std::move(name)), begin_(begin), size_(size) {}

    UniqueFd fd_;
    std::string name_;
    uint64_t begin_;
    uint64_t size_;
};

// A LoadStream that can be moved. Offsets count from the stream's first byte. Early ends are
// PeerClosed, everything else that reading returns is a failure of the file.
class Cursor {
 public:
    explicit Cursor(const Input& input);

    uint64_t position() const { return base_ + stream_->position(); }
    uint64_t remaining() const;
    void seek(uint64_t offset);

    Result<uint8_t> u8() { return stream_->u8(); }
    Result<uint16_t> be16() { return stream_->be16(); }
    Result<uint32_t> be32() { return stream_->be32(); }
    Result<uint64_t> be64() { return stream_->be64(); }
    Result<> bytes(MutBytes into) { return stream_->bytes(into); }
    Result<std::string> str8() { return stream_->str8(); }
    // Fails at once where the file is shorter.
    Result<> skip(uint64_t count);
    Result<ConstBytes> peek(size_t count) { return stream_->peek(count); }

 private:
    class Source;
    const Input& input_;
    uint64_t base_ = 0;
    std::unique_ptr<migration::ByteSource> source_;
    std::unique_ptr<migration::LoadStream> stream_;
};

}  // namespace ferry::stream_tool
