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

}  // namespace

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
    util::store_be32(at + kDataBytesAt, static_cast<uint32_t>(packet.normal_pages * kPageSize));
    util::store_be64(at + kNumberAt, packet.number);
    util::store_be32(at + kZeroAt, packet.zero_pages);
    std::ranges::copy(bytes_of(packet.block), at + kBlockAt);
    for (size_t i = 0; i < packet.normal_pages + packet.zero_pages; ++i) {
        util::store_be64(at + kOffsetsAt + i * sizeof(uint64_t), packet.offsets.at(i));
    }
}

Result<> parse_multifd_packet(const MultifdHeader& raw, MultifdPacket& packet) {
    const std::byte* const at = raw.data();
    MIG_CHECK(check_multifd_begin(at));
    packet.flags = util::load_be32(at + kFlagsAt);
    if ((packet.flags & ~kMultifdSync) != 0) {
        return make_error(ErrorKind::Protocol,
                          "flags {:#x}: pages are compressed in a way that is not configured here",
                          packet.flags);
    }
    const uint32_t allocated = util::load_be32(at + kAllocatedAt);
    const uint32_t normal = util::load_be32(at + kNormalAt);
    const uint32_t zero = util::load_be32(at + kZeroAt);
    if (allocated > kMultifdMaxPages || normal > allocated || zero > allocated - normal) {
        return make_error(ErrorKind::Protocol, "{} pages and {} zero pages of {}, the limit is {}",
                          normal, zero, allocated, kMultifdMaxPages);
    }
    // QEMU up to 8.2 leaves the last packet's length in one that has no pages.
    const uint32_t bytes = util::load_be32(at + kDataBytesAt);
    if (normal != 0 && bytes != normal * kPageSize) {
        return make_error(ErrorKind::Protocol, "{} bytes for {} pages", bytes, normal);
    }
    packet.normal_pages = normal;
    packet.zero_pages = zero;
    packet.number = util::load_be64(at + kNumberAt);
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
