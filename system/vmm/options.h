// SPDX-License-Identifier: BSD-2-Clause
// What the command line asks for, checked as far as it can be without touching anything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "accel/kvm/cpuid.h"
#include "accel/qtest/workload.h"
#include "migration/channel.h"
#include "monitor/json.h"
#include "monitor/transport.h"
#include "system/vmm/accelerator.h"
#include "system/vmm/machine-types.h"
#include "system/vmm/sub-options.h"
#include "util/char-address.h"
#include "util/result.h"

namespace ferry::vmm {

struct QtestLog {
    enum class To : uint8_t { Stderr, Nowhere, File } to = To::Stderr;
    std::string path;  // File
};

struct ChardevOptions {
    std::string id;
    util::CharAddress address;
};

struct MonitorOptions {
    enum class Mode : uint8_t { Control, Readline } mode = Mode::Control;
    monitor::Layout layout = monitor::Layout::Line;
    util::CharAddress address;
};

struct BackendOptions {
    enum class Kind : uint8_t { Anonymous, File } kind = Kind::Anonymous;
    std::string id;
    uint64_t size = 0;  // bytes
    std::string path;   // File
};

struct WorkloadOptions {
    std::string id;
    qtest::WorkloadState state;
};

struct DeviceOptions {
    std::string driver;
    SubOptions properties;
    std::shared_ptr<UniqueFd> fd = nullptr;  // for its property fd, of who handed it over
};

inline constexpr size_t kMaxSerials = 4;
struct SerialOptions {
    std::optional<util::CharAddress> address;  // nothing: there is no such port
};

struct DriveOptions {
    std::string id;  // may be empty
    std::string file;
    enum class Attached : uint8_t { No, Yes } attached = Attached::No;  // without a -device
};

// A disk device; it refers to a drive.
struct DiskOptions {
    std::string drive;
    uint64_t boot_index = UINT64_MAX;
};

// -global migration.NAME=VALUE, in order.
using MigrationPresets = std::vector<std::pair<std::string, std::string>>;

// When the guest has powered off: the process ends, or stays with a stopped VM.
enum class OnPowerOff : uint8_t { End, Pause };
// When somebody resets the VM: so it happens, or it is as if the guest had powered off.
enum class OnReset : uint8_t { Reset, ShutDown };

// -incoming: the VM waits for a migration, at an address or for migrate-incoming to name one.
struct IncomingOptions {
    std::string text;  // as given, for messages
    std::optional<migration::MigrationAddress> address;
};

// What the guest begins with. At most one of the paths.
struct BootOptions {
    std::string disk;
    std::string kernel;
    std::string command_line;  // of the kernel
};

// -object iommufd.
struct IommufdOptions {
    std::string id;
    std::string fd;  // number of an open /dev/iommu; empty: to be opened
};

struct Options {
    MachineType machine = kDefaultMachine;
    std::vector<AcceleratorOptions> accelerators;  // the first that works is used
    unsigned cpus = 1;
    std::string cpu_model = "qemu64";
    std::vector<kvm::FeatureChoice> cpu_features;  // beyond the model, in their order
    BootOptions boot;
    std::vector<SerialOptions> serials;
    std::string memory_backend;  // id, or empty
    uint64_t ram_bytes = 0;      // 0: the machine's default, or the backend's size
    enum class CoreDump : uint8_t { WithoutRam, WithRam } core_dump = CoreDump::WithRam;
    std::vector<BackendOptions> backends;
    std::vector<WorkloadOptions> workloads;
    std::vector<IommufdOptions> iommufds;
    std::vector<DeviceOptions> devices;
    std::vector<MonitorOptions> monitors;
    std::optional<util::CharAddress> qtest;
    QtestLog qtest_log;
    std::optional<IncomingOptions> incoming;
    enum class Autostart : uint8_t { No, Yes } autostart = Autostart::Yes;
    OnPowerOff on_power_off = OnPowerOff::End;
    OnReset on_reset = OnReset::Reset;
    enum class OnlyMigratable : uint8_t { No, Yes } only_migratable = OnlyMigratable::No;
    std::string name;
    std::string process_name;  // empty: that of the program
    std::string uuid = "00000000-0000-0000-0000-000000000000";
    std::string pidfile;
    std::vector<std::string> traces;  // patterns
    std::string trace_file;
    MigrationPresets migration_presets;
};

// Instead of a VM: print this and exit with status 0.
struct PrintAndExit {
    std::string text;
};

// The arguments without the program's name.
Result<std::variant<Options, PrintAndExit>> parse_command_line(
    const std::vector<std::string>& arguments);

std::string help_text();
std::string version_text();

// One row of the option table: what --help shows and how many arguments it has.
struct OptionHelp {
    std::string_view group;
    std::string_view name;      // without dashes
    std::string_view argument;  // empty: none
    std::string_view help;
};
const std::vector<OptionHelp>& option_table();

}  // namespace ferry::vmm
