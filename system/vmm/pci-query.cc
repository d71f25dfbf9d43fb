// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/pci-query.h"

#include <fmt/format.h>

#include <algorithm>

namespace ferry::vmm {

namespace {

using monitor::Json;
using pci::PciAddress;
using pci::PciBus;

// Configuration space, from the PCI specification.
constexpr uint16_t kVendor = 0x00, kDevice = 0x02, kCommand = 0x04, kClass = 0x0a,
                   kHeaderType = 0x0e, kFirstBar = 0x10, kSubsystemVendor = 0x2c, kSubsystem = 0x2e,
                   kInterruptLine = 0x3c, kInterruptPin = 0x3d;
constexpr uint32_t kIoEnable = 0x1, kMemoryEnable = 0x2;
constexpr uint32_t kBarIsIo = 0x1, kBarIs64 = 0x4, kBarPrefetch = 0x8;
constexpr unsigned kBars = 6;

struct ClassName {
    uint32_t code;
    std::string_view name;
};
constexpr std::array kClasses = {
    ClassName{0x0101, "IDE controller"}, ClassName{0x0106, "SATA controller"},
    ClassName{0x0108, "NVM controller"}, ClassName{0x0200, "Ethernet controller"},
    ClassName{0x0300, "VGA controller"}, ClassName{0x0600, "Host bridge"},
    ClassName{0x0601, "ISA bridge"},     ClassName{0x0604, "PCI bridge"},
    ClassName{0x0680, "Bridge"},         ClassName{0x0c05, "SMBus"},
};

// One function, read as the guest reads it.
class Function {
 public:
    Function(PciBus& bus, PciAddress address) : bus_(bus), address_(address) {}

    Json describe(const FunctionDetails* details) {
        Json out = {{"bus", 0},
                    {"slot", address_.device},
                    {"function", address_.function},
                    {"class_info", class_info()},
                    {"id", identity()},
                    {"irq_pin", read(kInterruptPin, 1)},
                    {"qdev_id", details != nullptr ? details->id : ""},
                    {"regions", Json::array()}};
        if (out["irq_pin"] != 0) out["irq"] = read(kInterruptLine, 1);
        if (details != nullptr) out["regions"] = regions(details->bar_bytes);
        return out;
    }

 private:
    uint32_t read(uint16_t offset, unsigned length) {
        return bus_.config_read(address_, offset, length);
    }

    Json class_info() {
        const uint32_t code = read(kClass, 2);
        Json out = {{"class", code}};
        const auto known = std::ranges::find(kClasses, code, &ClassName::code);
        if (known != kClasses.end()) out["desc"] = known->name;
        return out;
    }

    Json identity() {
        Json out = {{"vendor", read(kVendor, 2)}, {"device", read(kDevice, 2)}};
        const bool endpoint = (read(kHeaderType, 1) & 0x7f) == 0;
        if (endpoint && read(kSubsystemVendor, 2) != 0) {
            out["subsystem-vendor"] = read(kSubsystemVendor, 2);
            out["subsystem"] = read(kSubsystem, 2);
        }
        return out;
    }

    Json regions(const std::array<uint64_t, kBars>& bytes) {
        Json list = Json::array();
        for (unsigned bar = 0; bar < kBars; ++bar) {
            if (bytes[bar] != 0) list.push_back(region(bar, bytes[bar]));
        }
        return list;
    }

    Json region(unsigned bar, uint64_t bytes) {
        const auto offset = static_cast<uint16_t>(kFirstBar + 4 * bar);
        const uint32_t low = read(offset, 4);
        const uint32_t command = read(kCommand, 2);
        if ((low & kBarIsIo) != 0) {
            return {{"bar", bar},
                    {"type", "io"},
                    {"size", bytes},
                    {"address", place(low & ~uint32_t{0x3}, command & kIoEnable)}};
        }
        uint64_t address = low & ~uint32_t{0xf};
        const bool wide = (low & kBarIs64) != 0 && bar + 1 < kBars;
        if (wide) address |= uint64_t{read(static_cast<uint16_t>(offset + 4), 4)} << 32;
        return {{"bar", bar},
                {"type", "memory"},
                {"size", bytes},
                {"address", place(address, command & kMemoryEnable)},
                {"prefetch", (low & kBarPrefetch) != 0},
                {"mem_type_64", wide}};
    }

    // -1: the guest has not placed it, or has not switched it on.
    static Json place(uint64_t address, uint32_t enabled) {
        if (address == 0 || enabled == 0) return -1;
        return address;
    }

    PciBus& bus_;
    PciAddress address_;
};

}  // namespace

std::string_view bus_name(MachineType machine) {
    switch (machine) {
        case MachineType::Pc: return "pci.0";
        case MachineType::Q35: return "pcie.0";
        case MachineType::None: return "";
    }
    return "";
}

DetailsByAddress bar_sizes(const std::vector<const DeviceInfo*>& devices) {
    DetailsByAddress details;
    for (const DeviceInfo* device : devices) {
        details[device->address] = {device->id, device->bar_bytes};
    }
    return details;
}

monitor::Schema pci_schema() {
    using monitor::JsonType;
    using monitor::Schema;
    constexpr auto kOptional = monitor::Presence::Optional;
    const Schema class_info =
        Schema::object({{"desc", {JsonType::String}, kOptional}, {"class", {JsonType::Integer}}});
    const Schema identity = Schema::object({{"device", {JsonType::Integer}},
                                            {"vendor", {JsonType::Integer}},
                                            {"subsystem", {JsonType::Integer}, kOptional},
                                            {"subsystem-vendor", {JsonType::Integer}, kOptional}});
    const Schema region = Schema::object({{"bar", {JsonType::Integer}},
                                          {"type", {JsonType::String}},
                                          {"address", {JsonType::Integer}},
                                          {"size", {JsonType::Integer}},
                                          {"prefetch", {JsonType::Bool}, kOptional},
                                          {"mem_type_64", {JsonType::Bool}, kOptional}});
    const Schema function = Schema::object({{"bus", {JsonType::Integer}},
                                            {"slot", {JsonType::Integer}},
                                            {"function", {JsonType::Integer}},
                                            {"class_info", class_info},
                                            {"id", identity},
                                            {"irq", {JsonType::Integer}, kOptional},
                                            {"irq_pin", {JsonType::Integer}},
                                            {"qdev_id", {JsonType::String}},
                                            {"regions", Schema::array_of(region)}});
    return Schema::object({{"bus", {JsonType::Integer}}, {"devices", Schema::array_of(function)}});
}

Json pci_json(PciBus& bus, const DetailsByAddress& details) {
    Json functions = Json::array();
    for (const auto& [address, device] : bus.devices()) {
        const auto found = details.find(address);
        functions.push_back(
            Function(bus, address).describe(found == details.end() ? nullptr : &found->second));
    }
    return Json::array({{{"bus", 0}, {"devices", std::move(functions)}}});
}

}  // namespace ferry::vmm
