// SPDX-License-Identifier: BSD-2-Clause
// Section "globalstate": the run state that the VM had before the migration stopped it.
// Bytes: docs/interop/device-state.rst.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "migration/vmstate.h"
#include "system/runstate.h"

namespace ferry::migration {

// Main loop thread.
class GlobalState {
 public:
    void store(system::RunState state);
    // Running where no such section arrived, as QEMU assumes.
    system::RunState loaded() const { return loaded_; }
    void forget() { loaded_ = system::RunState::Running; }
    // WhenNeeded: only of a state that a destination does not assume by itself.
    enum class Sent : bool { WhenNeeded, Always };
    void set_sent(Sent sent) { sent_ = sent; }

    static const VMStateDescription& description();

 private:
    Result<> parse();
    bool needed() const;

    uint32_t size_ = 0;  // of the name with its NUL
    std::array<std::byte, 32> name_{};
    uint8_t has_was_suspended_ = 1;
    uint8_t was_suspended_ = 0;
    system::RunState stored_ = system::RunState::Running;
    system::RunState loaded_ = system::RunState::Running;
    Sent sent_ = Sent::Always;
};

}  // namespace ferry::migration
