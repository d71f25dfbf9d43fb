// SPDX-License-Identifier: BSD-2-Clause
// The commands of the main channel, QEMU's and ours.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ferry::stream_tool {

enum class CommandPlace : uint8_t {
    BeforeSections,
    Anywhere,    // before EOF
    Switchover,  // between the setup and the END sections, once
    Package,     // inside a package only
    Recovery,    // of an interrupted post-copy
    AfterEnd,    // behind EOF and the description
};

struct CommandInfo {
    // A length that the command decides itself.
    static constexpr uint16_t kAnyLength = 0xffff;
    uint16_t value;
    std::string_view name;
    uint16_t length;
    CommandPlace place;
    bool fits(uint16_t bytes) const;
};

namespace command {
inline constexpr uint16_t kOpenReturnPath = 1;
inline constexpr uint16_t kPing = 2;
inline constexpr uint16_t kPostcopyAdvise = 3;
inline constexpr uint16_t kPostcopyRamDiscard = 6;
inline constexpr uint16_t kPackaged = 7;
inline constexpr uint16_t kRecvBitmap = 10;
inline constexpr uint16_t kSwitchoverStart = 11;
}  // namespace command

inline constexpr uint16_t kAdviseBytes = 2 * sizeof(uint64_t);  // or none

const CommandInfo* find_command(uint16_t value);  // null if unknown

}  // namespace ferry::stream_tool
