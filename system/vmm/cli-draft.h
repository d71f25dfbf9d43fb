// SPDX-License-Identifier: BSD-2-Clause
// What the command line's functions share: the options as they are being built up, and the table
// from an option's name to its function. One file per group of options: cli-*.cc.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "system/vmm/options.h"

namespace ferry::vmm {

// What is being built up, and what later options refer to.
struct Draft {
    Options options;
    SubOptions machine;                      // merged
    std::optional<std::string> numa_memory;  // what -numa node,memdev= names; empty: nothing
    std::vector<ChardevOptions> chardevs;
    std::vector<DriveOptions> drives;
    std::vector<DiskOptions> disks;
    std::optional<std::string> print;  // something was asked for that ends in printing
};

using Handler = std::function<Result<>(Draft&, const std::string& value)>;
using Handlers = std::map<std::string_view, Handler, std::less<>>;

void add_machine_options(Handlers& handlers);
void add_boot_options(Handlers& handlers);
void add_object_options(Handlers& handlers);
void add_incoming_option(Handlers& handlers);
void add_control_options(Handlers& handlers);

// After all options, in this order: what could not be judged one by one.
Result<> finish_machine(Draft& draft);
Result<> finish_boot(Draft& draft);

// A device that is no function of its own on the bus; nothing where the driver is another one.
bool is_disk(std::string_view driver);
Result<> add_disk(Draft& draft, SubOptions properties);

// Accepts the values in `good`, because they ask for nothing that is not so anyway.
Handler only(std::string_view option, std::initializer_list<std::string_view> good);
inline Result<> accept_and_do_nothing(Draft&, const std::string&) {
    return {};
}

}  // namespace ferry::vmm
