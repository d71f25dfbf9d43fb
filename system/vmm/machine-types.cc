// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/machine-types.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "accel/kvm/vcpus.h"

namespace ferry::vmm {

namespace {

constexpr std::array kMachines = {
    MachineInfo{.type = MachineType::None,
                .name = "none",
                .alias = "",
                .description = "empty machine: RAM only, and no CPU",
                .ram_id = "ram",
                .max_cpus = 1,
                .acpi = MachineInfo::Acpi::No},
    MachineInfo{.type = MachineType::Pc,
                .name = "ferry-pc-1.0",
                .alias = "pc",
                .description = "PC with PCI",
                .ram_id = "pc.ram",
                .max_cpus = kvm::kMaxVcpus,
                .acpi = MachineInfo::Acpi::Yes},
    MachineInfo{.type = MachineType::Q35,
                .name = "ferry-q35-1.0",
                .alias = "q35",
                .description = "PC with PCI Express",
                .ram_id = "pc.ram",
                .max_cpus = kvm::kMaxVcpus,
                .acpi = MachineInfo::Acpi::Yes},
};

}  // namespace

std::span<const MachineInfo> machine_types() {
    return kMachines;
}

const MachineInfo& machine_info(MachineType type) {
    return *std::ranges::find(kMachines, type, &MachineInfo::type);
}

const MachineInfo* find_machine(std::string_view name) {
    const auto found = std::ranges::find_if(kMachines, [name](const MachineInfo& machine) {
        return machine.name == name || (!name.empty() && machine.alias == name);
    });
    return found == kMachines.end() ? nullptr : &*found;
}

std::string machine_help() {
    std::string text = "Supported machines are:\n";
    for (const MachineInfo& machine : kMachines) {
        if (!machine.alias.empty()) {
            text += fmt::format("{:<20} {} (alias of {})\n", machine.alias, machine.description,
                                machine.name);
        }
        text += fmt::format("{:<20} {}{}\n", machine.name, machine.description,
                            machine.type == kDefaultMachine ? " (default)" : "");
    }
    return text;
}

}  // namespace ferry::vmm
