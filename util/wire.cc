// SPDX-License-Identifier: BSD-2-Clause
#include "util/wire.h"

#include <bit>
#include <cassert>
#include <cstring>

#include "util/try.h"

namespace ferry::util {

namespace {
template <typename T, std::endian Order>
void store(std::byte* at, T value) {
    if constexpr (Order != std::endian::native) value = std::byteswap(value);
    std::memcpy(at, &value, sizeof(value));
}

template <typename T, std::endian Order>
T load(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof(value));
    if constexpr (Order != std::endian::native) value = std::byteswap(value);
    return value;
}
}  // namespace

void store_be16(std::byte* at, uint16_t value) {
    store<uint16_t, std::endian::big>(at, value);
}
void store_be32(std::byte* at, uint32_t value) {
    store<uint32_t, std::endian::big>(at, value);
}
void store_be64(std::byte* at, uint64_t value) {
    store<uint64_t, std::endian::big>(at, value);
}
void store_le16(std::byte* at, uint16_t value) {
    store<uint16_t, std::endian::little>(at, value);
}
void store_le32(std::byte* at, uint32_t value) {
    store<uint32_t, std::endian::little>(at, value);
}
void store_le64(std::byte* at, uint64_t value) {
    store<uint64_t, std::endian::little>(at, value);
}
uint16_t load_be16(const std::byte* at) {
    return load<uint16_t, std::endian::big>(at);
}
uint32_t load_be32(const std::byte* at) {
    return load<uint32_t, std::endian::big>(at);
}
uint64_t load_be64(const std::byte* at) {
    return load<uint64_t, std::endian::big>(at);
}
uint16_t load_le16(const std::byte* at) {
    return load<uint16_t, std::endian::little>(at);
}
uint32_t load_le32(const std::byte* at) {
    return load<uint32_t, std::endian::little>(at);
}
uint64_t load_le64(const std::byte* at) {
    return load<uint64_t, std::endian::little>(at);
}

WireWriter& WireWriter::u8(uint8_t value) {
    out_.push_back(std::byte{value});
    return *this;
}

WireWriter& WireWriter::be16(uint16_t value) {
    std::byte raw[2];
    store_be16(raw, value);
    return bytes(raw);
}

WireWriter& WireWriter::be32(uint32_t value) {
    std::byte raw[4];
    store_be32(raw, value);
    return bytes(raw);
}

WireWriter& WireWriter::be64(uint64_t value) {
    std::byte raw[8];
    store_be64(raw, value);
    return bytes(raw);
}

WireWriter& WireWriter::bytes(ConstBytes value) {
    out_.insert(out_.end(), value.begin(), value.end());
    return *this;
}

WireWriter& WireWriter::zeros(size_t count) {
    out_.resize(out_.size() + count);
    return *this;
}

WireWriter& WireWriter::str8(std::string_view text) {
    assert(text.size() <= 255);
    u8(static_cast<uint8_t>(text.size()));
    return bytes(bytes_of(text));
}

Result<ConstBytes> WireReader::bytes(size_t count) {
    if (count > in_.size()) {
        return make_error(ErrorKind::Protocol, "{} bytes wanted, {} left", count, in_.size());
    }
    const ConstBytes out = in_.first(count);
    in_ = in_.subspan(count);
    return out;
}

Result<uint8_t> WireReader::u8() {
    MIG_TRY(const ConstBytes raw, bytes(1));
    return static_cast<uint8_t>(raw[0]);
}

Result<uint16_t> WireReader::be16() {
    MIG_TRY(const ConstBytes raw, bytes(2));
    return load_be16(raw.data());
}

Result<uint32_t> WireReader::be32() {
    MIG_TRY(const ConstBytes raw, bytes(4));
    return load_be32(raw.data());
}

Result<uint64_t> WireReader::be64() {
    MIG_TRY(const ConstBytes raw, bytes(8));
    return load_be64(raw.data());
}

Result<std::string> WireReader::str8() {
    MIG_TRY(const uint8_t length, u8());
    MIG_TRY(const ConstBytes raw, bytes(length));
    return std::string(text_of(raw));
}

}  // namespace ferry::util
