// SPDX-License-Identifier: BSD-2-Clause
// What travels on the page channels of multifd: docs/interop/stream-format.rst, "Multifd".
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "migration/capabilities.h"
#include "migration/savevm.h"
#include "system/memory.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::migration {

inline constexpr uint32_t kMultifdMagic = 0x1122'3344;
inline constexpr size_t kMultifdMagicBytes = 4;
inline constexpr size_t kMultifdInitBytes = 64;
inline constexpr size_t kMultifdMaxPages = size_t{512} * 1024 / system::kPageSize;
inline constexpr size_t kMultifdBlockNameBytes = 256;
inline constexpr size_t kMultifdPacketBytes =
    64 + kMultifdBlockNameBytes + kMultifdMaxPages * sizeof(uint64_t);

// Of one packet's pages, when they are compressed. Twice what they are without: more than any
// method needs for pages that can't be made smaller.
inline constexpr size_t kMultifdMaxCompressedBytes = kMultifdMaxPages * system::kPageSize * 2;

// In `flags`; one bit stands for what this side does not know.
inline constexpr uint32_t kMultifdSync = 0x01;
inline constexpr uint32_t kMultifdCompression = 0x3e;  // a method's number, not bits
inline constexpr uint32_t kMultifdZlib = 0x02;
inline constexpr uint32_t kMultifdZstd = 0x04;
inline constexpr uint32_t kMultifdDeviceState = 0x40;

// Magic and version, with which every packet begins.
Result<> check_multifd_begin(const std::byte* raw);

using MultifdInit = std::array<std::byte, kMultifdInitBytes>;
MultifdInit multifd_init(const Uuid& uuid, uint8_t channel);
// The channel's number. Protocol when it is no INIT of this VM with `channels` channels.
Result<uint8_t> parse_multifd_init(std::span<const std::byte, kMultifdInitBytes> raw,
                                   const Uuid& uuid, size_t channels);

using MultifdHeader = std::array<std::byte, kMultifdPacketBytes>;

// One packet of RAM, or a SYNC. The pages' data follow it, the zero pages have none.
struct MultifdPacket {
    uint32_t flags = 0;
    uint64_t number = 0;
    std::string_view block;                          // parsed: points into the header
    std::array<uint64_t, kMultifdMaxPages> offsets;  // in bytes; normal pages, then zero pages
    uint32_t normal_pages = 0;
    uint32_t zero_pages = 0;
    uint32_t data_bytes = 0;  // that follow the header

    std::span<const uint64_t> normal() const { return std::span(offsets).first(normal_pages); }
    std::span<const uint64_t> zero() const {
        return std::span(offsets).subspan(normal_pages, zero_pages);
    }
};
void put_multifd_packet(MultifdHeader& raw, const MultifdPacket& packet);
// Checks everything that needs no knowledge of the VM's RAM.
Result<> parse_multifd_packet(const MultifdHeader& raw, MultifdCompression method,
                              MultifdPacket& packet);

// What `flags` of a packet with pages has in kMultifdCompression.
uint32_t multifd_flags(MultifdCompression method);

}  // namespace ferry::migration
