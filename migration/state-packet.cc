// SPDX-License-Identifier: BSD-2-Clause
#include "migration/state-packet.h"

#include <algorithm>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

namespace {

constexpr uint32_t kVersion = 1;  // of multifd's packets
constexpr size_t kFlagsAt = 8;
constexpr size_t kNameAt = 12;
constexpr size_t kNameBytes = 256;
constexpr size_t kInstanceAt = 268;
constexpr size_t kLengthAt = 272;

constexpr uint32_t kPlaceVersion = 0;
constexpr uint32_t kInvalidIndex = 0xffff'ffff;
constexpr uint32_t kConfigFlag = 0x1;
// Ferry only, after the hello.
constexpr uint32_t kInitialDoneFlag = 0x4600'0000;
constexpr uint32_t kDiscardFlag = 0x4601'0000;

uint32_t flags_of(StatePacketKind kind) {
    switch (kind) {
        case StatePacketKind::Data: return 0;
        case StatePacketKind::Config: return kConfigFlag;
        case StatePacketKind::InitialDone: return kInitialDoneFlag;
        case StatePacketKind::Discard: return kDiscardFlag;
    }
    std::unreachable();
}

StatePacketKind kind_of(uint32_t flags, StateKinds known) {
    if ((flags & kConfigFlag) != 0) return StatePacketKind::Config;
    if (known == StateKinds::All && flags == kInitialDoneFlag) return StatePacketKind::InitialDone;
    if (known == StateKinds::All && flags == kDiscardFlag) return StatePacketKind::Discard;
    return StatePacketKind::Data;
}

}  // namespace

void put_state_packet(StatePacketBegin& raw, const StateHeader& header, StatePlace place) {
    raw.fill(std::byte{0});
    std::byte* const at = raw.data();
    util::store_be32(at, kMultifdMagic);
    util::store_be32(at + 4, kVersion);
    util::store_be32(at + kFlagsAt, kMultifdDeviceState);
    std::ranges::copy(bytes_of(header.idstr), at + kNameAt);
    util::store_be32(at + kInstanceAt, header.instance_id);
    util::store_be32(at + kLengthAt, static_cast<uint32_t>(kStatePlaceBytes) + header.data_bytes);
    std::byte* const behind = at + kStateHeaderBytes;
    util::store_be32(behind, kPlaceVersion);
    util::store_be32(behind + 4, place.index);
    util::store_be32(behind + 8, flags_of(place.kind));
}

Result<StateHeader> parse_state_header(std::span<const std::byte, kStateHeaderBytes> raw) {
    const std::byte* const at = raw.data();
    MIG_CHECK(check_multifd_begin(at));
    if (const uint32_t flags = util::load_be32(at + kFlagsAt); flags != kMultifdDeviceState) {
        return make_error(ErrorKind::Protocol, "flags {:#x}: device state stands alone in a packet",
                          flags);
    }
    const auto name = raw.subspan(kNameAt, kNameBytes);
    const auto end = std::ranges::find(name, std::byte{0});
    if (end == name.end()) return make_error(ErrorKind::Protocol, "a device's name without end");
    const uint32_t bytes = util::load_be32(at + kLengthAt);
    if (bytes < kStatePlaceBytes) {
        return make_error(ErrorKind::Protocol, "{} bytes of device state, at least {} belong there",
                          bytes, kStatePlaceBytes);
    }
    if (bytes - kStatePlaceBytes > kMaxStateBytes) {
        return make_error(ErrorKind::LimitExceeded, "{} bytes of device state, the limit is {}",
                          bytes - kStatePlaceBytes, kMaxStateBytes);
    }
    return StateHeader{.idstr = text_of(name.first(static_cast<size_t>(end - name.begin()))),
                       .instance_id = util::load_be32(at + kInstanceAt),
                       .data_bytes = bytes - static_cast<uint32_t>(kStatePlaceBytes)};
}

Result<StatePlace> parse_state_place(std::span<const std::byte, kStatePlaceBytes> raw,
                                     uint32_t data_bytes, StateKinds known) {
    if (const uint32_t version = util::load_be32(raw.data()); version != kPlaceVersion) {
        return make_error(ErrorKind::Protocol, "version {} of device state, only {} is known",
                          version, kPlaceVersion);
    }
    const uint32_t index = util::load_be32(raw.data() + 4);
    if (index == kInvalidIndex) return make_error(ErrorKind::Protocol, "index {:#x}", index);
    const StatePacketKind kind = kind_of(util::load_be32(raw.data() + 8), known);
    const bool has_data = kind == StatePacketKind::Data || kind == StatePacketKind::Config;
    if (!has_data && data_bytes != 0) {
        return make_error(ErrorKind::Protocol, "{} bytes in a packet that has none", data_bytes);
    }
    return StatePlace{.index = index, .kind = kind};
}

}  // namespace ferry::migration
