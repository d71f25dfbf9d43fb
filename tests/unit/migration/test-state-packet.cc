// SPDX-License-Identifier: BSD-2-Clause
// The bytes of device state on a page channel: as QEMU sends them, and as nobody should.
#include <algorithm>

#include "migration/state-packet.h"
#include "tests/unit/migration/savevm-support.h"

namespace ferry::migration {
namespace {

using test::ByteVector;
using test::hex;
using test::to_text;

// The first packet of a device, with four bytes behind it.
constexpr std::string_view kFirstOfQemu =
    "11 22 33 44 00 00 00 01 00 00 00 40 "
    "'0000:00:05.0/vfio' 00*239 "
    "00 00 00 00 00 00 00 10 "
    "00 00 00 00 00 00 00 00 00 00 00 00";

StatePacketBegin begin_of(std::string_view text) {
    const ByteVector bytes = hex(text);
    StatePacketBegin raw{};
    std::copy_n(bytes.begin(), raw.size(), raw.begin());
    return raw;
}

Result<StateHeader> header_of(const StatePacketBegin& raw) {
    return parse_state_header(std::span(raw).first<kStateHeaderBytes>());
}
Result<StatePlace> place_of(const StatePacketBegin& raw, uint32_t bytes, StateKinds known) {
    return parse_state_place(std::span(raw).subspan<kStateHeaderBytes, kStatePlaceBytes>(), bytes,
                             known);
}

TEST(StatePacket, IsTheOneThatQemuSends) {
    StatePacketBegin raw{};
    raw.fill(std::byte{0xee});
    put_state_packet(raw, {.idstr = "0000:00:05.0/vfio", .instance_id = 0, .data_bytes = 4},
                     {.index = 0, .kind = StatePacketKind::Data});
    EXPECT_EQ(to_text(raw), to_text(hex(kFirstOfQemu)));
    const auto header = header_of(raw);
    ASSERT_TRUE(header);
    EXPECT_EQ(header->idstr, "0000:00:05.0/vfio");
    EXPECT_EQ(header->data_bytes, 4U);
}

TEST(StatePacket, ConfigurationIsFlagOne) {
    StatePacketBegin raw{};
    put_state_packet(raw, {.idstr = "d", .instance_id = 3, .data_bytes = 8},
                     {.index = 0x01020304, .kind = StatePacketKind::Config});
    EXPECT_EQ(to_text(std::span(raw).last<8>()), to_text(hex("01 02 03 04 00 00 00 01")));
    EXPECT_EQ(header_of(raw)->instance_id, 3U);
    const auto place = place_of(raw, 8, StateKinds::DataAndConfig);
    ASSERT_TRUE(place);
    EXPECT_EQ(place->index, 0x01020304U);
    EXPECT_EQ(place->kind, StatePacketKind::Config);
}

// To somebody without the hello they are flags that mean nothing, as QEMU has it.
TEST(StatePacket, KindsOfFerryAreKnownOnlyAfterTheHello) {
    for (const auto kind : {StatePacketKind::InitialDone, StatePacketKind::Discard}) {
        StatePacketBegin raw{};
        put_state_packet(raw, {.idstr = "d", .instance_id = 0, .data_bytes = 0},
                         {.index = 7, .kind = kind});
        EXPECT_EQ(place_of(raw, 0, StateKinds::All)->kind, kind);
        EXPECT_EQ(place_of(raw, 0, StateKinds::DataAndConfig)->kind, StatePacketKind::Data);
        EXPECT_FALSE(place_of(raw, 1, StateKinds::All)) << "data in a packet that has none";
    }
}

TEST(StatePacket, NoDataAtAllAreFine) {
    StatePacketBegin raw{};
    put_state_packet(raw, {.idstr = "d", .instance_id = 0, .data_bytes = 0}, {.index = 1});
    EXPECT_EQ(header_of(raw)->data_bytes, 0U);
}

TEST(StatePacket, LengthsFlagsAndVersionsAreChecked) {
    struct Row {
        size_t at;
        uint32_t value;
        std::string_view error;
    };
    constexpr std::array kRows = {
        Row{0, 0x11223345, "magic"},
        Row{4, 2, "version 2"},
        Row{8, 0x41, "flags 0x41: device state stands alone"},
        Row{8, 0x42, "flags 0x42"},
        Row{264, 0x41414141, "a device's name without end"},
        Row{272, 0, "0 bytes of device state, at least 12"},
        Row{272, 11, "11 bytes of device state"},
        Row{272, 1024 * 1024 + 13, "1048577 bytes of device state, the limit is 1048576"},
        Row{272, 0xffffffff, "the limit is 1048576"},
        Row{276, 1, "version 1 of device state, only 0"},
        Row{280, 0xffffffff, "index 0xffffffff"},
    };
    for (const Row& row : kRows) {
        StatePacketBegin raw = begin_of(kFirstOfQemu);
        if (row.at == 264) std::fill_n(raw.begin() + 12, 256, std::byte{'A'});
        util::store_be32(raw.data() + row.at, row.value);
        Result<> read;
        if (auto header = header_of(raw); !header) {
            read = header.error();
        } else if (auto place = place_of(raw, header->data_bytes, StateKinds::All); !place) {
            read = place.error();
        }
        ASSERT_FALSE(read) << row.error;
        EXPECT_NE(read.error().message().find(row.error), std::string::npos)
            << read.error().message();
    }
}

}  // namespace
}  // namespace ferry::migration
