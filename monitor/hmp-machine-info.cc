// SPDX-License-Identifier: BSD-2-Clause
// What HMP shows of the machine, made of what QMP answers.
#include <fmt/format.h>

#include <string>

#include "monitor/hmp.h"

namespace ferry::monitor {

namespace {

// An address that has not been given yet is all ones, and its end wraps around.
std::string region_text(const Json& region) {
    const uint64_t first = to_uint64(region["address"]);
    const uint64_t last = first + (to_uint64(region["size"]) - 1);
    const auto bar = region["bar"].get<int>();
    if (region["type"] == "io") {
        return fmt::format("      BAR{}: I/O at 0x{:04x} [0x{:04x}].\n", bar, first, last);
    }
    return fmt::format("      BAR{}: {} bit{} memory at 0x{:08x} [0x{:08x}].\n", bar,
                       region["mem_type_64"] == true ? 64 : 32,
                       region["prefetch"] == true ? " prefetchable" : "", first, last);
}

std::string function_text(const Json& function) {
    std::string out =
        fmt::format("  Bus {:2}, device {:3}, function {}:\n", function["bus"].get<int>(),
                    function["slot"].get<int>(), function["function"].get<int>());
    const Json& kind = function["class_info"];
    const Json& id = function["id"];
    out += "    ";
    out += kind.contains("desc") ? kind["desc"].get<std::string>()
                                 : fmt::format("Class {:04}", kind["class"].get<int>());
    out += fmt::format(": PCI device {:04x}:{:04x}\n", id["vendor"].get<unsigned>(),
                       id["device"].get<unsigned>());
    if (id.contains("subsystem")) {
        out += fmt::format("      PCI subsystem {:04x}:{:04x}\n",
                           id["subsystem-vendor"].get<unsigned>(), id["subsystem"].get<unsigned>());
    }
    if (function.contains("irq")) {
        out += fmt::format("      IRQ {}, pin {:c}\n", function["irq"].get<int>(),
                           'A' + function["irq_pin"].get<int>() - 1);
    }
    for (const Json& region : function["regions"]) out += region_text(region);
    return out + fmt::format("      id \"{}\"\n", function["qdev_id"].get<std::string>());
}

}  // namespace

std::string kvm_text(const Json& kvm) {
    const char* support = kvm["enabled"] == true   ? "enabled"
                          : kvm["present"] == true ? "disabled"
                                                   : "not compiled";
    return fmt::format("kvm support: {}\n", support);
}

std::string cpus_text(const Json& cpus) {
    std::string out;
    for (const Json& cpu : cpus) {
        out += fmt::format("{} CPU #{}: thread_id={}\n", out.empty() ? '*' : ' ',
                           cpu["cpu-index"].get<int>(), cpu["thread-id"].get<int>());
    }
    return out;
}

std::string pci_text(const Json& buses) {
    std::string out;
    for (const Json& bus : buses) {
        for (const Json& function : bus["devices"]) out += function_text(function);
    }
    return out;
}

std::string memdev_text(const Json& backends) {
    const auto yes_no = [](const Json& value) { return value == true ? "true" : "false"; };
    std::string out;
    for (const Json& backend : backends) {
        out += fmt::format(
            "memory backend: {}\n  size:  {}\n  merge: {}\n  dump: {}\n  prealloc: {}\n"
            "  share: {}\n  policy: {}\n  host nodes: \n",
            backend["id"].get<std::string>(), to_uint64(backend["size"]), yes_no(backend["merge"]),
            yes_no(backend["dump"]), yes_no(backend["prealloc"]), yes_no(backend["share"]),
            backend["policy"].get<std::string>());
    }
    return out + "\n";
}

std::string dirty_rate_text(const Json& rate) {
    std::string out = fmt::format(
        "Status: {}\nStart Time: {} (sec)\nSample Pages: {} (per GB)\nPeriod: {} (sec)\nMode: {}\n",
        rate["status"].get<std::string>(), to_uint64(rate["start-time"]),
        to_uint64(rate["sample-pages"]), to_uint64(rate["calc-time"]),
        rate["mode"].get<std::string>());
    out += rate.contains("dirty-rate")
               ? fmt::format("Dirty rate: {} (MB/s)\n", to_uint64(rate["dirty-rate"]))
               : std::string("Dirty rate: (not ready)\n");
    return out;
}

std::string dirty_limit_text(const Json& limits) {
    if (limits.empty()) return "Dirty page limit not enabled!\n";
    std::string out;
    for (const Json& limit : limits) {
        out += fmt::format("vcpu[{}], limit rate {} (MB/s), current rate {} (MB/s)\n",
                           limit["cpu-index"].get<int>(), to_uint64(limit["limit-rate"]),
                           to_uint64(limit["current-rate"]));
    }
    return out;
}

}  // namespace ferry::monitor
