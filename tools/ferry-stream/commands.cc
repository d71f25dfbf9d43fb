// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/commands.h"

#include <algorithm>
#include <array>

#include "migration/stream.h"

namespace ferry::stream_tool {

namespace {
using migration::Command;

constexpr uint16_t kAny = CommandInfo::kAnyLength;
constexpr std::array kCommands = {
    CommandInfo{command::kOpenReturnPath, "OPEN_RETURN_PATH", 0, CommandPlace::BeforeSections},
    CommandInfo{command::kPing, "PING", sizeof(uint32_t), CommandPlace::Anywhere},
    CommandInfo{command::kPostcopyAdvise, "POSTCOPY_ADVISE", kAny, CommandPlace::BeforeSections},
    CommandInfo{4, "POSTCOPY_LISTEN", 0, CommandPlace::Package},
    CommandInfo{5, "POSTCOPY_RUN", 0, CommandPlace::Package},
    CommandInfo{command::kPostcopyRamDiscard, "POSTCOPY_RAM_DISCARD", kAny, CommandPlace::Anywhere},
    CommandInfo{command::kPackaged, "PACKAGED", sizeof(uint32_t), CommandPlace::Anywhere},
    CommandInfo{8, "ENABLE_COLO", 0, CommandPlace::BeforeSections},
    CommandInfo{9, "POSTCOPY_RESUME", 0, CommandPlace::Recovery},
    CommandInfo{command::kRecvBitmap, "RECV_BITMAP", kAny, CommandPlace::Recovery},
    CommandInfo{command::kSwitchoverStart, "SWITCHOVER_START", 0, CommandPlace::Switchover},
    CommandInfo{static_cast<uint16_t>(Command::Go), "GO", 0, CommandPlace::AfterEnd},
    CommandInfo{static_cast<uint16_t>(Command::Abort), "ABORT", 0, CommandPlace::AfterEnd},
};
static_assert(command::kOpenReturnPath == static_cast<uint16_t>(Command::OpenReturnPath));
static_assert(command::kPing == static_cast<uint16_t>(Command::Ping));
static_assert(command::kSwitchoverStart == static_cast<uint16_t>(Command::SwitchoverStart));

// POSTCOPY_RAM_DISCARD: version, a name with its NUL, 1 to 12 ranges.
bool fits_discard(uint16_t bytes) {
    constexpr uint16_t kRangeBytes = 2 * sizeof(uint64_t);
    return bytes >= 1 + 1 + 1 + 1 + kRangeBytes && bytes <= 1 + 1 + 0xff + 1 + 12 * kRangeBytes;
}
}  // namespace

bool CommandInfo::fits(uint16_t bytes) const {
    if (value == command::kPostcopyAdvise) return bytes == 0 || bytes == kAdviseBytes;
    if (value == command::kPostcopyRamDiscard) return fits_discard(bytes);
    if (value == command::kRecvBitmap) return bytes >= 2 && bytes <= 0x100;
    return bytes == length;
}

const CommandInfo* find_command(uint16_t value) {
    const auto found = std::ranges::find(kCommands, value, &CommandInfo::value);
    return found == kCommands.end() ? nullptr : &*found;
}

}  // namespace ferry::stream_tool
