// SPDX-License-Identifier: BSD-2-Clause
// The header of a packet of device state on a page channel: docs/interop/stream-format.rst.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "migration/device-state.h"
#include "migration/multifd-packet.h"

namespace ferry::migration {

// Which device, how much follows; then the packet's place.
inline constexpr size_t kStateHeaderBytes = 276;
inline constexpr size_t kStatePlaceBytes = 12;

struct StateHeader {
    std::string_view idstr;  // parsed: points into the header
    uint32_t instance_id = 0;
    uint32_t data_bytes = 0;  // behind the place
};
struct StatePlace {
    uint32_t index = 0;
    StatePacketKind kind = StatePacketKind::Data;
};

using StatePacketBegin = std::array<std::byte, kStateHeaderBytes + kStatePlaceBytes>;

void put_state_packet(StatePacketBegin& raw, const StateHeader& header, StatePlace place);
Result<StateHeader> parse_state_header(std::span<const std::byte, kStateHeaderBytes> raw);
// Kinds beyond Config are known only after the hello. Flags that nobody knows mean nothing.
enum class StateKinds : uint8_t { DataAndConfig, All };
Result<StatePlace> parse_state_place(std::span<const std::byte, kStatePlaceBytes> raw,
                                     uint32_t data_bytes, StateKinds known);

}  // namespace ferry::migration
