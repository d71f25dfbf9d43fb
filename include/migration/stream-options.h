// SPDX-License-Identifier: BSD-2-Clause
// How a stream is written for peers of other ages.
#pragma once

#include <cstdint>

namespace ferry::migration {

// What goes into the stream besides the VM's state; peers of other ages want it differently.
struct StreamOptions {
    enum class Sent : bool { No, Yes };
    Sent switchover_start = Sent::Yes;  // a command before the last pass, unknown before QEMU 10.0
    Sent global_state = Sent::Yes;      // No: only of a state that is neither running nor paused
    // When the page channels of multifd are brought in line with the main one: after a round, with
    // a record, or at the end of every section of RAM (QEMU up to 8.0). The same on both sides.
    enum class Barrier : uint8_t { PerRound, PerSection };
    Barrier multifd_barrier = Barrier::PerRound;
};

}  // namespace ferry::migration
