// SPDX-License-Identifier: BSD-2-Clause
// Options about the machine itself: its type, what runs its CPUs, its memory and names.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>

#include "accel/kvm/cpuid.h"
#include "accel/kvm/vcpus.h"
#include "system/vmm/cli-draft.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

Result<> machine(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-machine", value, "type"));
    const auto type = options.take("type");
    if (type == "help") {
        draft.print = machine_help();
        return {};
    }
    if (type) {
        const MachineInfo* const found = find_machine(*type);
        if (found == nullptr) {
            return make_error(ErrorKind::Unsupported,
                              "-machine {}: unsupported machine type (see -machine help)", *type);
        }
        draft.options.machine = found->type;
    }
    draft.machine.merge(std::move(options));
    return {};
}

Result<> accel(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-accel " + value, value, "accel"));
    AcceleratorOptions accelerator;
    MIG_TRY(accelerator.name, options.take_required("accel"));
    if (accelerator.name == "help") {
        draft.print = "Accelerators supported:\nkvm\nqtest\n";
        return {};
    }
    if (accelerator.kind() == AcceleratorKind::Kvm) {
        MIG_TRY(const auto entries, options.take_number("dirty-ring-size"));
        // 0 is QEMU's way to say none. How many the host allows is known when it is asked.
        if (entries && *entries != 0 && (!std::has_single_bit(*entries) || *entries > UINT32_MAX)) {
            return make_error(ErrorKind::InvalidArgument,
                              "-accel {}: dirty-ring-size must be a power of two below 2^32",
                              value);
        }
        accelerator.dirty_ring_size = static_cast<uint32_t>(entries.value_or(0));
    }
    // What an accelerator that is not there would have understood does not matter.
    if (accelerator.kind()) MIG_CHECK(options.finish());
    draft.options.accelerators.push_back(std::move(accelerator));
    return {};
}

// CPUs and the shape of their package: one socket of so many cores. What is said beyond the number
// must agree with it.
Result<> smp(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-smp " + value, value, "cpus"));
    MIG_TRY(const auto cpus, options.take_number("cpus"));
    MIG_TRY(const auto max_cpus, options.take_number("maxcpus"));
    uint64_t shape = 1;
    bool shaped = false;
    for (const std::string_view level :
         {"drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"}) {
        MIG_TRY(const auto count, options.take_number(level));
        if (count == uint64_t{0} || count.value_or(1) > kvm::kMaxVcpus) {
            return make_error(ErrorKind::InvalidArgument, "{}: {} must be 1 to {}",
                              options.context(), level, kvm::kMaxVcpus);
        }
        shaped = shaped || count;
        shape = std::min<uint64_t>(shape * count.value_or(1), UINT32_MAX);
    }
    MIG_CHECK(options.finish());
    const uint64_t count = cpus.value_or(max_cpus.value_or(shape));
    if (count == 0 || count > kvm::kMaxVcpus) {
        return make_error(ErrorKind::InvalidArgument, "{}: there must be 1 to {} CPUs",
                          options.context(), kvm::kMaxVcpus);
    }
    if (shaped && count % shape != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: sockets, cores and threads make {} CPUs, not {}", options.context(),
                          shape, count);
    }
    if (max_cpus.value_or(count) != count) {
        return make_error(ErrorKind::Unsupported,
                          "{}: CPUs are not added later, so maxcpus can only be {}",
                          options.context(), count);
    }
    draft.options.cpus = static_cast<unsigned>(count);
    return {};
}

// "+NAME", "-NAME", "NAME=on", "NAME=off"; nothing for a property that asks for what is so anyway.
Result<std::optional<kvm::FeatureChoice>> feature_choice(const SubOptions::Pair& pair) {
    using Shown = kvm::FeatureChoice::Shown;
    const bool plus = pair.key.starts_with('+');
    const bool sign = plus || pair.key.starts_with('-');
    kvm::FeatureChoice choice{sign ? pair.key.substr(1) : pair.key};
    std::ranges::replace(choice.name, '_', '-');
    MIG_TRY(const bool on, parse_bool(pair.value), "{}", pair.key);
    if (sign && !on) {
        return make_error(ErrorKind::InvalidArgument, "'{}={}': a sign has no value", pair.key,
                          pair.value);
    }
    if (!sign && choice.name == "migratable") {
        if (on) return std::optional<kvm::FeatureChoice>();
        return make_error(ErrorKind::Unsupported,
                          "migratable=off: what can't be migrated is never shown to the guest");
    }
    choice.shown = (sign ? plus : on) ? Shown::Yes : Shown::No;
    MIG_CHECK(kvm::check_feature_choice(choice));
    return std::optional(std::move(choice));
}

Result<> cpu(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-cpu " + value, value, "model"));
    MIG_TRY(const auto model, options.take_required("model"));
    const auto names = kvm::cpu_model_names();
    if (model == "help") {
        draft.print = fmt::format("Available CPUs:\n{}\n", fmt::join(names, "\n"));
        return {};
    }
    if (std::ranges::find(names, model) == names.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "-cpu {}: unable to find CPU model '{}'; there are: {}", value, model,
                          fmt::join(names, ", "));
    }
    std::vector<kvm::FeatureChoice> features;
    for (const SubOptions::Pair& pair : options.take_rest()) {
        MIG_TRY(auto choice, feature_choice(pair), "-cpu {}", value);
        if (choice) features.push_back(std::move(*choice));
    }
    draft.options.cpu_model = model;
    draft.options.cpu_features = std::move(features);
    return {};
}

// RAM of one node: another way to name the machine's memory backend.
Result<> numa(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-numa " + value, value, "type"));
    MIG_TRY(const auto type, options.take_required("type"));
    if (type != "node") {
        return make_error(ErrorKind::Unsupported, "{}: '{}' is not there; only node",
                          options.context(), type);
    }
    MIG_TRY(const auto number, options.take_number("nodeid"));
    if (draft.numa_memory || number.value_or(0) != 0) {
        return make_error(ErrorKind::Unsupported, "{}: there is one node, number 0",
                          options.context());
    }
    draft.numa_memory = options.take("memdev").value_or("");
    return options.finish();
}

Result<> memory(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-m " + value, value, "size"));
    MIG_TRY(const auto size, options.take_size("size", kMiB));
    MIG_CHECK(options.finish());
    if (!size || *size == 0 || *size % system::kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "-m {}: the size must be a positive multiple of {} bytes", value,
                          system::kPageSize);
    }
    draft.options.ram_bytes = *size;
    return {};
}

Result<> name(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-name " + value, value, "guest"));
    if (auto guest = options.take("guest")) draft.options.name = std::move(*guest);
    MIG_TRY(const auto debug_threads, options.take_switch("debug-threads"));
    if (debug_threads == Switch::Off) {
        return make_error(ErrorKind::Unsupported, "{}: threads always have names",
                          options.context());
    }
    if (auto process = options.take("process")) draft.options.process_name = std::move(*process);
    return options.finish();
}

Result<> uuid(Draft& draft, const std::string& value) {
    constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    bool good = value.size() == kForm.size();
    for (size_t i = 0; good && i < kForm.size(); ++i) {
        good = kForm[i] == '-' ? value[i] == '-'
                               : std::isxdigit(static_cast<unsigned char>(value[i])) != 0;
    }
    if (!good) {
        return make_error(ErrorKind::InvalidArgument, "-uuid {}: expecting the form {}", value,
                          kForm);
    }
    draft.options.uuid = value;
    return {};
}

Result<> no_autostart(Draft& draft, const std::string&) {
    draft.options.autostart = Options::Autostart::No;
    return {};
}

Result<> no_shutdown(Draft& draft, const std::string&) {
    draft.options.on_power_off = OnPowerOff::Pause;
    return {};
}

Result<> no_reboot(Draft& draft, const std::string&) {
    draft.options.on_reset = OnReset::ShutDown;
    return {};
}

Result<> action(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-action " + value, value));
    if (const auto reboot = options.take("reboot")) {
        if (*reboot != "reset" && *reboot != "shutdown") {
            return make_error(ErrorKind::InvalidArgument, "{}: reboot is 'reset' or 'shutdown'",
                              options.context());
        }
        draft.options.on_reset = *reboot == "reset" ? OnReset::Reset : OnReset::ShutDown;
    }
    if (const auto shutdown = options.take("shutdown")) {
        if (*shutdown != "poweroff" && *shutdown != "pause") {
            return make_error(ErrorKind::InvalidArgument, "{}: shutdown is 'poweroff' or 'pause'",
                              options.context());
        }
        draft.options.on_power_off = *shutdown == "poweroff" ? OnPowerOff::End : OnPowerOff::Pause;
    }
    return options.finish();
}

// -machine accel=A:B is another form of -accel A -accel B.
void add_accelerators_of_machine(Draft& draft) {
    const auto list = draft.machine.take("accel");
    if (!list) return;
    for (std::string_view rest = *list; !rest.empty();) {
        const size_t end = std::min(rest.find(':'), rest.size());
        draft.options.accelerators.emplace_back(std::string(rest.substr(0, end)));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
}

Result<> take_memory_keys(Draft& draft) {
    Options& options = draft.options;
    const auto backend = draft.machine.take("memory-backend");
    const std::string numa_memory = draft.numa_memory.value_or("");
    if (backend && !numa_memory.empty()) {
        return make_error(ErrorKind::InvalidArgument,
                          "'-machine memory-backend' and '-numa memdev' exclude each other");
    }
    options.memory_backend = backend.value_or(numa_memory);
    MIG_TRY(const auto dump, draft.machine.take_switch("dump-guest-core"));
    if (dump == Switch::Off) options.core_dump = Options::CoreDump::WithoutRam;
    // About RAM besides the guest's own: there is none.
    MIG_CHECK(draft.machine.take_switch("aux-ram-share"));
    return {};
}

}  // namespace

void add_machine_options(Handlers& handlers) {
    handlers.insert({
        {"machine", machine},
        {"M", machine},
        {"accel", accel},
        {"enable-kvm", [](Draft& draft, const std::string&) { return accel(draft, "kvm"); }},
        {"smp", smp},
        {"cpu", cpu},
        {"numa", numa},
        {"m", memory},
        {"name", name},
        {"uuid", uuid},
        {"S", no_autostart},
        {"no-shutdown", no_shutdown},
        {"no-reboot", no_reboot},
        {"action", action},
        {"nodefaults", accept_and_do_nothing},
        {"no-user-config", accept_and_do_nothing},
        // There is no firmware to look for.
        {"L", accept_and_do_nothing},
    });
}

Result<> finish_machine(Draft& draft) {
    Options& options = draft.options;
    draft.machine.set_context("-machine");
    add_accelerators_of_machine(draft);
    if (options.accelerators.empty()) options.accelerators.emplace_back(std::string("kvm"));
    MIG_CHECK(take_memory_keys(draft));
    MIG_CHECK(draft.machine.finish());
    const std::string& backend = options.memory_backend;
    if (!backend.empty() && std::ranges::find(options.backends, backend, &BackendOptions::id) ==
                                options.backends.end()) {
        return make_error(
            ErrorKind::InvalidArgument, "{}={}: no -object of this id",
            draft.numa_memory == backend ? "-numa node,memdev" : "-machine memory-backend",
            backend);
    }
    const MachineInfo& info = machine_info(options.machine);
    if (options.cpus > info.max_cpus) {
        return make_error(ErrorKind::InvalidArgument, "-smp {}: machine '{}' has at most {} CPU",
                          options.cpus, info.name, info.max_cpus);
    }
    return {};
}

}  // namespace ferry::vmm
