// SPDX-License-Identifier: BSD-2-Clause
// From arguments to Options. Each option has one function; what is not handled is refused by name.
#include <algorithm>

#include "system/vmm/cli-draft.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

const Handlers& handlers() {
    static const Handlers kHandlers = [] {
        Handlers all = {
            {"version",
             [](Draft& draft, const std::string&) -> Result<> {
                 draft.print = version_text();
                 return {};
             }},
        };
        for (const std::string_view name : {"help", "h"}) {
            all[name] = [](Draft& draft, const std::string&) -> Result<> {
                draft.print = help_text();
                return {};
            };
        }
        add_machine_options(all);
        add_boot_options(all);
        add_object_options(all);
        add_incoming_option(all);
        add_control_options(all);
        return all;
    }();
    return kHandlers;
}

// Options of QEMU that a guest would miss if they were passed over.
struct NotThere {
    std::string_view name;
    std::string_view reason;
};
constexpr NotThere kNotThere[] = {
    {"bios", "there is no firmware; the guest begins with -kernel or with a boot disk (-drive)"},
    {"initrd", "a kernel gets no initial RAM disk here; build it into the -kernel"},
};

struct Given {
    std::string_view name;  // of the option table
    std::string value;
};

Result<std::vector<Given>> split_arguments(const std::vector<std::string>& arguments) {
    std::vector<Given> given;
    for (auto at = arguments.begin(); at != arguments.end(); ++at) {
        std::string_view name = *at;
        if (!name.starts_with('-') || name.size() < 2) {
            return make_error(ErrorKind::InvalidArgument,
                              "{}: not an option (a disk is given with -drive)", *at);
        }
        name.remove_prefix(name.starts_with("--") ? 2 : 1);
        const auto row = std::ranges::find(option_table(), name, &OptionHelp::name);
        if (const auto known = std::ranges::find(kNotThere, name, &NotThere::name);
            known != std::end(kNotThere)) {
            return make_error(ErrorKind::Unsupported, "{}: {}", *at, known->reason);
        }
        if (row == option_table().end()) {
            return make_error(ErrorKind::InvalidArgument, "{}: invalid option", *at);
        }
        if (row->argument.empty()) {
            given.push_back({row->name, {}});
            continue;
        }
        if (std::next(at) == arguments.end()) {
            return make_error(ErrorKind::InvalidArgument, "{}: requires an argument", *at);
        }
        given.push_back({row->name, *++at});
    }
    return given;
}

}  // namespace

Handler only(std::string_view option, std::initializer_list<std::string_view> good) {
    return [option, good = std::vector(good)](Draft&, const std::string& value) -> Result<> {
        if (std::ranges::find(good, value) != good.end()) return {};
        return make_error(ErrorKind::Unsupported, "-{} {}: not there; only '{}'", option, value,
                          good.front());
    };
}

Result<std::variant<Options, PrintAndExit>> parse_command_line(
    const std::vector<std::string>& arguments) {
    MIG_TRY(const auto given, split_arguments(arguments));
    Draft draft;
    // What others refer to by id comes first, wherever it stands.
    const auto run = [&](bool referred_to) -> Result<> {
        for (const Given& option : given) {
            if (draft.print || (option.name == "chardev") != referred_to) continue;
            MIG_CHECK(handlers().at(option.name)(draft, option.value));
        }
        return {};
    };
    MIG_CHECK(run(true));
    MIG_CHECK(run(false));
    if (draft.print) return PrintAndExit{std::move(*draft.print)};
    MIG_CHECK(finish_machine(draft));
    MIG_CHECK(finish_boot(draft));
    return std::move(draft.options);
}

}  // namespace ferry::vmm
