// SPDX-License-Identifier: BSD-2-Clause
// The machines that there are. Their full names carry a version and travel in the stream, so that a
// later version of a machine can differ; what people type is the alias of the newest.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ferry::vmm {

enum class MachineType : uint8_t { None, Pc, Q35 };

struct MachineInfo {
    MachineType type;
    std::string_view name;
    std::string_view alias;  // empty: none
    std::string_view description;
    std::string_view ram_id;  // the block's name where no memory backend gives it one
    unsigned max_cpus;
    enum class Acpi : uint8_t { No, Yes } acpi;  // power management registers
};

inline constexpr MachineType kDefaultMachine = MachineType::Q35;

std::span<const MachineInfo> machine_types();
const MachineInfo& machine_info(MachineType type);
// By name or alias; null: there is none.
const MachineInfo* find_machine(std::string_view name);
std::string machine_help();

}  // namespace ferry::vmm
