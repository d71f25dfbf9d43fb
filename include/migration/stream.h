// SPDX-License-Identifier: BSD-2-Clause
// SaveStream and LoadStream: buffered big-endian reading and writing over a channel, and the
// elements a stream is made of. Bytes: docs/interop/stream-format.rst.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "migration/channel.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::migration {

inline constexpr uint32_t kStreamMagic = 0x5145564d;  // "QEVM"
inline constexpr uint32_t kStreamVersion = 3;

enum class Element : uint8_t {
    Eof = 0x00,
    SectionStart = 0x01,
    SectionPart = 0x02,
    SectionEnd = 0x03,
    SectionFull = 0x04,
    Subsection = 0x05,
    VmDescription = 0x06,
    Configuration = 0x07,
    Command = 0x08,
    SectionFooter = 0x7e,
};

enum class Command : uint16_t {
    OpenReturnPath = 1,
    Ping = 2,
    SwitchoverStart = 11,
    // Ferry only, after the hello, once EOF and VMDESCRIPTION are sent.
    Go = 0x4601,     // the VM is yours
    Abort = 0x4602,  // the source keeps the VM
};

// One thread at a time. Puts never fail: the first write error is kept, later bytes are dropped,
// and flush() (or status()) returns it. Memory is allocated by the constructor only.
class SaveStream {
 public:
    static constexpr size_t kBufferBytes = 256 * 1024;  // of copied data, between two writes
    static constexpr size_t kMaxParts = 1024;           // one vectored write of the kernel
    explicit SaveStream(ByteSink& sink, size_t buffer_bytes = kBufferBytes);
    SaveStream(const SaveStream&) = delete;
    SaveStream& operator=(const SaveStream&) = delete;

    void u8(uint8_t value);
    void be16(uint16_t value);
    void be32(uint32_t value);
    void be64(uint64_t value);
    void bytes(ConstBytes value);  // copied
    void zeros(size_t count);
    void str8(std::string_view text);  // 0..255 bytes
    // Not copied: must stay mapped until flush() returns; sent with whatever it holds then.
    void bytes_ref(ConstBytes value);

    Result<> flush();
    Result<> status() const;
    // All bytes put so far, sent or not.
    uint64_t position() const { return position_; }

 private:
    MutBytes reserve(size_t count);  // room in the copy buffer; sends when full
    void add_part(ConstBytes part);
    void send_pending();

    ByteSink& sink_;
    std::vector<std::byte> buffer_;  // fixed size; parts_ point into it
    size_t used_ = 0;
    std::vector<ConstBytes> parts_;
    uint64_t position_ = 0;
    std::optional<Error> error_;
};

// One thread at a time. Every method fails with the source's error, or PeerClosed at an early end.
class LoadStream {
 public:
    static constexpr size_t kBufferBytes = 256 * 1024;
    explicit LoadStream(ByteSource& source, size_t buffer_bytes = kBufferBytes);
    LoadStream(const LoadStream&) = delete;
    LoadStream& operator=(const LoadStream&) = delete;

    Result<uint8_t> u8();
    Result<uint16_t> be16();
    Result<uint32_t> be32();
    Result<uint64_t> be64();
    // Large reads go from the source straight into `into`.
    Result<> bytes(MutBytes into);
    Result<> skip(uint64_t count);
    Result<std::string> str8();
    // 1..max bytes, as many as are there without waiting (waits for the first). A view into the
    // buffer, valid until the next call: for data that goes on to a file or device.
    Result<ConstBytes> chunk(size_t max);
    // Up to `count` next bytes without consuming them; fewer only at the end of the stream.
    // count <= kMaxPeek.
    static constexpr size_t kMaxPeek = 4096;
    Result<ConstBytes> peek(size_t count);
    uint64_t position() const { return position_; }  // bytes consumed

 private:
    Result<bool> read_more();                 // what the source has; false at its end
    Result<size_t> buffer_up(size_t wanted);  // so many bytes in the buffer, or all there are
    Result<> fill(size_t at_least);           // so many bytes in the buffer
    ConstBytes take(size_t count);            // consumes buffered bytes
    Error ended(uint64_t wanted, uint64_t had) const;

    ByteSource& source_;
    std::vector<std::byte> buffer_;
    size_t begin_ = 0;
    size_t end_ = 0;
    uint64_t position_ = 0;
};

// A SaveStream's sink that keeps the bytes: state captured in one go and sent later.
class MemorySink final : public ByteSink {
 public:
    Result<> write_all(std::span<const ConstBytes> parts) override;
    std::vector<std::byte> take() { return std::move(bytes_); }
    ConstBytes view() const { return bytes_; }

 private:
    std::vector<std::byte> bytes_;
};

// A LoadStream's source over bytes at hand.
class MemorySource final : public ByteSource {
 public:
    explicit MemorySource(ConstBytes bytes) : bytes_(bytes) {}
    Result<size_t> read_some(MutBytes into) override;

 private:
    ConstBytes bytes_;
};

}  // namespace ferry::migration
