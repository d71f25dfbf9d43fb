// SPDX-License-Identifier: BSD-2-Clause
// What the calls of a VfioDeviceIo are named, for people: on the activity board, in fault scripts
// and logs of calls.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "hw/vfio/mig-state.h"

namespace ferry::vfio::call {

inline constexpr std::string_view kInfo = "get info", kRegionInfo = "get region info",
                                  kIrqInfo = "get irq info", kSetIrqs = "set irqs",
                                  kDisableIrqs = "disable irqs", kMaskIrq = "mask irq",
                                  kUnmaskIrq = "unmask irq", kUnmaskEventfd = "set unmask eventfd",
                                  kReset = "reset", kCaps = "get migration caps",
                                  kGetState = "get state", kStopCopyBytes = "get data size",
                                  kReadState = "read state", kWriteState = "write state",
                                  kPrecopyInfo = "get precopy info", kLogProbe = "probe dma log",
                                  kLogStart = "start dma log", kLogReport = "report dma log",
                                  kLogStop = "stop dma log";

inline std::string set_state(MigState next) {
    return fmt::format("set state {}", to_string(next));
}
inline std::string arc(MigState from, MigState to) {
    return fmt::format("arc:{}->{}", to_string(from), to_string(to));
}
inline std::string read_region(uint32_t region) {
    return fmt::format("read region {}", region);
}
inline std::string write_region(uint32_t region) {
    return fmt::format("write region {}", region);
}
inline std::string map_region(uint32_t region) {
    return fmt::format("map region {}", region);
}

}  // namespace ferry::vfio::call
