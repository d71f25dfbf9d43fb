// SPDX-License-Identifier: BSD-2-Clause
#include "migration/multifd-packet.h"

#include <algorithm>
#include <cstring>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

namespace {

using system::kPageSize;

constexpr uint32_t kVersion = 1;

// Where the fields stand.
constexpr size_t kVersionAt = 4;
constexpr size_t kUuidAt = 8;
constexpr size_t kChannelAt = 24;
constexpr size_t kFlagsAt = 8;
constexpr size_t kAllocatedAt = 12;
constexpr size_t kNormalAt = 16;
constexpr size_t kDataBytesAt = 20;
constexpr size_t kNumberAt = 24;
constexpr size_t kZeroAt = 32;
constexpr size_t kBlockAt = 64;
constexpr size_t kOffsetsAt = kBlockAt + kMultifdBlockNameBytes;

Result<> check_flags(const MultifdPacket& packet, MultifdCompression method) {
    const uint32_t flags = packet.flags;
    const uint32_t found = flags & kMultifdCompression;
    const uint32_t wanted = multifd_flags(method);
    const bool has_pages = packet.normal_pages + packet.zero_pages != 0;
    if (found != wanted && (has_pages || found != 0)) {
        return make_error(ErrorKind::Protocol,
                          "packet {}: flags {:#x}: pages are compressed by method {:#x}, but "
                          "multifd-compression is {} ({:#x}) here",
                          packet.number, flags, found, to_string(method), wanted);
    }
    if ((flags & ~(kMultifdSync | kMultifdCompression)) != 0) {
        return make_error(ErrorKind::Protocol, "packet {}: flags {:#x} are not supported",
                          packet.number, flags);
    }
    return {};
}

Result<> check_data_bytes(const MultifdPacket& packet, MultifdCompression method) {
    const uint64_t pages_bytes = packet.normal_pages * kPageSize;
    if (method == MultifdCompression::None) {
        if (packet.data_bytes == pages_bytes) return {};
        return make_error(ErrorKind::Protocol, "packet {}: {} bytes for {} pages", packet.number,
                          packet.data_bytes, packet.normal_pages);
    }
    if (packet.data_bytes != 0 && packet.data_bytes <= kMultifdMaxCompressedBytes) return {};
    return make_error(ErrorKind::Protocol,
                      "packet {}: {} bytes of {} for {} pages, at least 1 and at most {} are "
                      "allowed",
                      packet.number, packet.data_bytes, to_string(method), packet.normal_pages,
                      kMultifdMaxCompressedBytes);
}

}  // namespace

uint32_t multifd_flags(MultifdCompression method) {
    switch (method) {
        case MultifdCompression::None: return 0;
        case MultifdCompression::Zlib: return kMultifdZlib;
        case MultifdCompression::Zstd: return kMultifdZstd;
    }
    std::unreachable();
}

Result<> check_multifd_begin(const std::byte* raw) {
    if (const uint32_t magic = util::load_be32(raw); magic != kMultifdMagic) {
        return make_error(ErrorKind::Protocol, "magic {:#x} instead of {:#x}", magic,
                          kMultifdMagic);
    }
    if (const uint32_t version = util::load_be32(raw + kVersionAt); version != kVersion) {
        return make_error(ErrorKind::Protocol, "version {} is not supported, only {}", version,
                          kVersion);
    }
    return {};
}

MultifdInit multifd_init(const Uuid& uuid, uint8_t channel) {
    MultifdInit raw{};
    util::store_be32(raw.data(), kMultifdMagic);
    util::store_be32(raw.data() + kVersionAt, kVersion);
    std::ranges::copy(uuid, raw.begin() + kUuidAt);
    raw.at(kChannelAt) = std::byte{channel};
    return raw;
}

Result<uint8_t> parse_multifd_init(std::span<const std::byte, kMultifdInitBytes> raw,
                                   const Uuid& uuid, size_t channels) {
    MIG_CHECK(check_multifd_begin(raw.data()));
    if (!std::ranges::equal(raw.subspan(kUuidAt, uuid.size()), uuid)) {
        return make_error(ErrorKind::Protocol, "it comes from a VM with another UUID");
    }
    const auto channel = static_cast<uint8_t>(raw[kChannelAt]);
    if (channel >= channels) {
        return make_error(ErrorKind::Protocol,
                          "number {}, but there are {} channels (multifd-channels) here", channel,
                          channels);
    }
    return channel;
}

void put_multifd_packet(MultifdHeader& raw, const MultifdPacket& packet) {
    raw.fill(std::byte{0});
    std::byte* const at = raw.data();
    const bool pages = packet.normal_pages + packet.zero_pages != 0;
    util::store_be32(at, kMultifdMagic);
    util::store_be32(at + kVersionAt, kVersion);
    util::store_be32(at + kFlagsAt, packet.flags);
    util::store_be32(at + kAllocatedAt, pages ? kMultifdMaxPages : 0);
    util::store_be32(at + kNormalAt, packet.normal_pages);
    util::store_be32(at + kDataBytesAt, packet.data_bytes);
    util::store_be64(at + kNumberAt, packet.number);
    util::store_be32(at + kZeroAt, packet.zero_pages);
    std::ranges::copy(bytes_of(packet.block), at + kBlockAt);
    for (size_t i = 0; i < packet.normal_pages + packet.zero_pages; ++i) {
        util::store_be64(at + kOffsetsAt + i * sizeof(uint64_t), packet.offsets.at(i));
    }
}

Result<> parse_multifd_packet(const MultifdHeader& raw, MultifdCompression method,
                              MultifdPacket& packet) {
    const std::byte* const at = raw.data();
    MIG_CHECK(check_multifd_begin(at));
    packet.flags = util::load_be32(at + kFlagsAt);
    packet.number = util::load_be64(at + kNumberAt);
    const uint32_t allocated = util::load_be32(at + kAllocatedAt);
    const uint32_t normal = util::load_be32(at + kNormalAt);
    const uint32_t zero = util::load_be32(at + kZeroAt);
    if (allocated > kMultifdMaxPages || normal > allocated || zero > allocated - normal) {
        return make_error(ErrorKind::Protocol,
                          "packet {}: {} pages and {} zero pages of {}, the limit is {}",
                          packet.number, normal, zero, allocated, kMultifdMaxPages);
    }
    packet.normal_pages = normal;
    packet.zero_pages = zero;
    MIG_CHECK(check_flags(packet, method));
    // QEMU 7.2 leaves the last packet's length in one that has no pages.
    packet.data_bytes = normal != 0 ? util::load_be32(at + kDataBytesAt) : 0;
    if (normal != 0) MIG_CHECK(check_data_bytes(packet, method));
    const auto name = std::span(raw).subspan(kBlockAt, kMultifdBlockNameBytes);
    const auto end = std::ranges::find(name, std::byte{0});
    if (end == name.end()) return make_error(ErrorKind::Protocol, "a block's name without end");
    packet.block = text_of(name.first(static_cast<size_t>(end - name.begin())));
    for (size_t i = 0; i < normal + zero; ++i) {
        packet.offsets.at(i) = util::load_be64(at + kOffsetsAt + i * sizeof(uint64_t));
    }
    return {};
}

}  // namespace ferry::migration
