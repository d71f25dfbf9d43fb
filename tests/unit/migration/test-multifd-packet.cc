// SPDX-License-Identifier: BSD-2-Clause
// The bytes of multifd: as captured from QEMU, and as somebody who means no good would send them.
#include <algorithm>

#include "migration/multifd-packet.h"
#include "tests/unit/migration/savevm-support.h"

namespace ferry::migration {
namespace {

using test::ByteVector;
using test::hex;
using test::to_text;

constexpr std::string_view kInitOfOne = "11 22 33 44 00 00 00 01 00*16 01 00*39";
constexpr std::string_view kPacketBegin =
    "11 22 33 44 00 00 00 01 00 00 00 00 00 00 00 80"
    "00 00 00 02 00 00 20 00 00 00 00 00 00 00 00 05"
    "00 00 00 7e 00 00 00 00 00*24 'microvm.ram' 00*245";
constexpr std::string_view kSync =
    "11 22 33 44 00 00 00 01 00 00 00 01 00*12 00 00 00 00 00 00 00 25 00*1312";

ByteVector with_offsets(ByteVector begin, const std::vector<uint64_t>& offsets) {
    for (const uint64_t offset : offsets) {
        std::array<std::byte, 8> raw{};
        util::store_be64(raw.data(), offset);
        begin.insert(begin.end(), raw.begin(), raw.end());
    }
    begin.resize(kMultifdPacketBytes);
    return begin;
}

TEST(MultifdPacket, InitIsTheOneThatQemuSends) {
    const MultifdInit raw = multifd_init(Uuid{}, 1);
    EXPECT_EQ(to_text(raw), to_text(hex(kInitOfOne)));
    const auto number = parse_multifd_init(raw, Uuid{}, 2);
    ASSERT_TRUE(number);
    EXPECT_EQ(*number, 1);
}

TEST(MultifdPacket, InitOfAnotherVmOrTooManyChannelsIsRefused) {
    Uuid other{};
    other[3] = std::byte{7};
    struct Row {
        MultifdInit raw;
        std::string_view error;
    };
    MultifdInit version = multifd_init(Uuid{}, 0);
    version[7] = std::byte{2};
    for (const Row& row :
         {Row{MultifdInit{}, "magic 0x0 instead of"}, Row{version, "version 2 is not supported"},
          Row{multifd_init(other, 0), "from a VM with another UUID"},
          Row{multifd_init(Uuid{}, 2), "number 2, but there are 2 channels"}}) {
        const auto number = parse_multifd_init(row.raw, Uuid{}, 2);
        ASSERT_FALSE(number) << row.error;
        EXPECT_NE(number.error().message().find(row.error), std::string::npos)
            << number.error().message();
        EXPECT_EQ(number.error().kind(), ErrorKind::Protocol);
    }
}

TEST(MultifdPacket, PagesAreAsQemuWritesThem) {
    MultifdPacket packet;
    packet.block = "microvm.ram";
    packet.number = 5;
    packet.normal_pages = 2;
    packet.zero_pages = 126;
    packet.data_bytes = 2 * system::kPageSize;
    std::vector<uint64_t> offsets{0, 0x6000};
    for (uint64_t page = 0; offsets.size() < kMultifdMaxPages; ++page) {
        if (page != 0 && page != 6) offsets.push_back(page * system::kPageSize);
    }
    std::ranges::copy(offsets, packet.offsets.begin());
    MultifdHeader raw{};
    put_multifd_packet(raw, packet);
    EXPECT_EQ(to_text(raw), to_text(with_offsets(hex(kPacketBegin), offsets)));

    MultifdPacket read;
    ASSERT_TRUE(parse_multifd_packet(raw, MultifdCompression::None, read));
    EXPECT_EQ(read.block, packet.block);
    EXPECT_EQ(read.number, packet.number);
    EXPECT_TRUE(std::ranges::equal(read.normal(), packet.normal()));
    EXPECT_TRUE(std::ranges::equal(read.zero(), packet.zero()));
}

TEST(MultifdPacket, SyncIsAsQemuWritesIt) {
    MultifdPacket packet;
    packet.flags = kMultifdSync;
    packet.number = 0x25;
    MultifdHeader raw{};
    put_multifd_packet(raw, packet);
    EXPECT_EQ(to_text(raw), to_text(hex(kSync)));
    MultifdPacket read;
    ASSERT_TRUE(parse_multifd_packet(raw, MultifdCompression::None, read));
    EXPECT_EQ(read.flags, kMultifdSync);
}

// What stood in the header before must not stay in it: it would be guest memory of another page.
TEST(MultifdPacket, NothingOfTheLastPacketIsLeft) {
    MultifdHeader raw{};
    raw.fill(std::byte{0xee});
    MultifdPacket packet;
    packet.block = "m";
    packet.normal_pages = 1;
    packet.offsets[0] = 0x1000;
    put_multifd_packet(raw, packet);
    EXPECT_EQ(std::ranges::count(raw, std::byte{0xee}), 0);
}

TEST(MultifdPacket, CountsLengthsAndFlagsAreChecked) {
    struct Row {
        size_t at;
        uint32_t value;
        std::string_view error;
    };
    constexpr std::array kRows = {
        Row{0, 0x11223345, "magic 0x11223345 instead of 0x11223344"},
        Row{4, 0, "version 0 is not supported"},
        Row{8, 0x02, "compressed by method 0x2, but multifd-compression is none (0x0) here"},
        Row{8, 0x3e, "compressed by method 0x3e, but multifd-compression is none (0x0) here"},
        Row{8, 0x80, "packet 5: flags 0x80 are not supported"},
        Row{12, 129, "2 pages and 126 zero pages of 129, the limit is 128"},
        Row{12, 127, "2 pages and 126 zero pages of 127"},
        Row{16, 0xffffffff, "the limit is 128"},
        Row{32, 0xffffffff, "the limit is 128"},
        Row{20, 0x2001, "8193 bytes for 2 pages"},
    };
    for (const Row& row : kRows) {
        const ByteVector bytes = with_offsets(hex(kPacketBegin), {});
        MultifdHeader raw{};
        std::ranges::copy(bytes, raw.begin());
        util::store_be32(raw.data() + row.at, row.value);
        MultifdPacket packet;
        const auto read = parse_multifd_packet(raw, MultifdCompression::None, packet);
        ASSERT_FALSE(read) << row.error;
        EXPECT_NE(read.error().message().find(row.error), std::string::npos)
            << read.error().message();
    }
}

TEST(MultifdPacket, SyncWithTheLastPacketsLengthIsTaken) {
    MultifdPacket packet;
    packet.flags = kMultifdSync;
    MultifdHeader raw{};
    put_multifd_packet(raw, packet);
    util::store_be32(raw.data() + 20, 0x2000);
    EXPECT_TRUE(parse_multifd_packet(raw, MultifdCompression::None, packet));
}

// A packet of two pages whose method and length are these, where `here` is configured.
std::string compressed_packet_error(uint32_t flags, uint32_t bytes, MultifdCompression here) {
    const ByteVector source = with_offsets(hex(kPacketBegin), {});
    MultifdHeader raw{};
    std::ranges::copy(source, raw.begin());
    util::store_be32(raw.data() + 8, flags);
    util::store_be32(raw.data() + 20, bytes);
    MultifdPacket packet;
    const auto read = parse_multifd_packet(raw, here, packet);
    if (!read) return read.error().message();
    EXPECT_EQ(packet.data_bytes, bytes);
    return "";
}

TEST(MultifdPacket, CompressedDataHaveTheirMethodAndALimit) {
    using enum MultifdCompression;
    constexpr uint32_t kLimit = 1024 * 1024;
    for (const uint32_t bytes : {1U, 100U, 0x2000U, kLimit}) {
        EXPECT_EQ(compressed_packet_error(0x02, bytes, Zlib), "");
        EXPECT_EQ(compressed_packet_error(0x04, bytes, Zstd), "");
        EXPECT_EQ(compressed_packet_error(0x05, bytes, Zstd), "") << "with SYNC";
    }
    struct Row {
        uint32_t flags;
        uint32_t bytes;
        MultifdCompression here;
        std::string_view error;
    };
    constexpr std::array kRows = {
        Row{0x02, 0, Zlib, "packet 5: 0 bytes of zlib for 2 pages"},
        Row{0x04, kLimit + 1, Zstd, "packet 5: 1048577 bytes of zstd for 2 pages"},
        Row{0x04, 0xffffffff, Zstd, "at least 1 and at most 1048576"},
        Row{0x00, 0x2000, Zlib,
            "packet 5: flags 0x0: pages are compressed by method 0x0, but "
            "multifd-compression is zlib (0x2) here"},
        Row{0x04, 100, Zlib, "by method 0x4, but multifd-compression is zlib (0x2) here"},
        Row{0x02, 100, Zstd, "by method 0x2, but multifd-compression is zstd (0x4) here"},
        Row{0x08, 100, Zstd, "by method 0x8, but multifd-compression is zstd (0x4) here"},
        Row{0x06, 100, Zstd, "by method 0x6, but multifd-compression is zstd (0x4) here"},
        Row{0x42, 100, Zlib, "flags 0x42 are not supported"},
    };
    for (const Row& row : kRows) {
        const std::string error = compressed_packet_error(row.flags, row.bytes, row.here);
        EXPECT_NE(error.find(row.error), std::string::npos) << row.error << "\n" << error;
    }
}

// QEMU's SYNC says no method; older ones have it, with or without pages.
TEST(MultifdPacket, SyncMayHaveTheMethodOrNone) {
    for (const uint32_t flags : {kMultifdSync, kMultifdSync | kMultifdZlib}) {
        MultifdPacket packet;
        packet.flags = flags;
        MultifdHeader raw{};
        put_multifd_packet(raw, packet);
        MultifdPacket read;
        EXPECT_TRUE(parse_multifd_packet(raw, MultifdCompression::Zlib, read));
        EXPECT_EQ(read.data_bytes, 0U);
        EXPECT_EQ(parse_multifd_packet(raw, MultifdCompression::Zstd, read).has_value(),
                  flags == kMultifdSync);
    }
}

TEST(MultifdPacket, BlockNameMustEnd) {
    const ByteVector bytes = with_offsets(hex(kPacketBegin), {});
    MultifdHeader raw{};
    std::ranges::copy(bytes, raw.begin());
    std::fill_n(raw.begin() + 64, kMultifdBlockNameBytes, std::byte{'x'});
    MultifdPacket packet;
    const auto read = parse_multifd_packet(raw, MultifdCompression::None, packet);
    ASSERT_FALSE(read);
    EXPECT_NE(read.error().message().find("name without end"), std::string::npos);
}

}  // namespace
}  // namespace ferry::migration
