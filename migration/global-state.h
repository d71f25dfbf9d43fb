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
    // `sleeps`: the guest is suspended to RAM, even where the state is another one (paused).
    void store(system::RunState state, bool sleeps);
    // Running where no such section arrived, as QEMU assumes.
    system::RunState loaded() const { return loaded_; }
    bool loaded_sleeps() const { return loaded_sleeps_; }
    void forget() {
        loaded_ = system::RunState::Running;
        loaded_sleeps_ = false;
    }
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
    bool loaded_sleeps_ = false;
    Sent sent_ = Sent::Always;
};

}  // namespace ferry::migration
