// SPDX-License-Identifier: BSD-2-Clause
// Integers to bytes and back, byte order in the name, bounds checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/bytes.h"
#include "util/result.h"

namespace ferry::util {

void store_be16(std::byte* at, uint16_t value);
void store_be32(std::byte* at, uint32_t value);
void store_be64(std::byte* at, uint64_t value);
void store_le16(std::byte* at, uint16_t value);
void store_le32(std::byte* at, uint32_t value);
void store_le64(std::byte* at, uint64_t value);
uint16_t load_be16(const std::byte* at);
uint32_t load_be32(const std::byte* at);
uint64_t load_be64(const std::byte* at);
uint16_t load_le16(const std::byte* at);
uint32_t load_le32(const std::byte* at);
uint64_t load_le64(const std::byte* at);

// Appends to a growing buffer.
class WireWriter {
 public:
    WireWriter& u8(uint8_t value);
    WireWriter& be16(uint16_t value);
    WireWriter& be32(uint32_t value);
    WireWriter& be64(uint64_t value);
    WireWriter& bytes(ConstBytes value);
    WireWriter& zeros(size_t count);
    WireWriter& str8(std::string_view text);  // at most 255 bytes
    size_t size() const { return out_.size(); }
    ConstBytes view() const { return out_; }
    std::vector<std::byte> take() { return std::move(out_); }

 private:
    std::vector<std::byte> out_;
};

// Reads from a fixed buffer; every method fails with Protocol when it is too short.
class WireReader {
 public:
    explicit WireReader(ConstBytes in) : in_(in) {}
    Result<uint8_t> u8();
    Result<uint16_t> be16();
    Result<uint32_t> be32();
    Result<uint64_t> be64();
    Result<ConstBytes> bytes(size_t count);  // a view into the buffer
    Result<std::string> str8();
    size_t remaining() const { return in_.size(); }

 private:
    ConstBytes in_;
};

}  // namespace ferry::util
