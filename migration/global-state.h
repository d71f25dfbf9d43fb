// SPDX-License-Identifier: BSD-2-Clause
// Section "globalstate": the run state that the VM had before the migration stopped it.
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

    static const VMStateDescription& description();

 private:
    Result<> parse();

    uint32_t size_ = 0;  // of the name with its NUL
    std::array<std::byte, 32> name_{};
    uint8_t has_was_suspended_ = 1;
    uint8_t was_suspended_ = 0;
    system::RunState loaded_ = system::RunState::Running;
};

}  // namespace ferry::migration
