// SPDX-License-Identifier: BSD-2-Clause
// Commands for people, one line each. They do nothing themselves: each runs QMP commands and turns
// the answers into text. Main loop thread only.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "migration/migration.h"
#include "monitor/command.h"
#include "monitor/vm-control.h"

namespace ferry::monitor {

// Where a line came from decides what it may do to the person waiting for it.
enum class HmpSource : uint8_t { Interactive, QmpCommand };

// Gets what the command printed, lines ending in LF.
using HmpDone = std::move_only_function<void(std::string text)>;

// What `info migrate` tells of how the process was started.
struct MigrationGlobals {
    migration::StreamOptions stream;
    bool only_migratable = false;
};

// What HMP needs beyond QMP commands.
class HmpHost {
 public:
    virtual ~HmpHost() = default;
    // Calls `ended` once when the outgoing migration that was just started is over.
    virtual void when_migration_ended(std::move_only_function<void()> ended) = 0;
    virtual MigrationGlobals migration_globals() const = 0;
};

struct HmpCall {
    std::map<std::string, std::string, std::less<>> arguments;  // a flag that was given has ""
    HmpSource source;
    MonitorFds& fds;  // valid during the call only
    HmpDone done;
};

struct HmpParameter {
    enum class Kind : uint8_t { Flag, Word, OptionalWord, OnOff, Number, OptionalNumber } kind;
    std::string name;  // of a flag: its letter
};

struct HmpCommand {
    std::string name;
    std::string alias;  // or empty
    std::vector<HmpParameter> parameters;
    std::string synopsis;  // of the parameters, for people
    std::string help;
    std::function<void(HmpCall)> handler;
};

class Hmp {
 public:
    // All outlive this.
    Hmp(const CommandTable& qmp, HmpHost& host);
    Hmp(const Hmp&) = delete;
    Hmp& operator=(const Hmp&) = delete;

    void run(std::string_view line, HmpSource source, MonitorFds& fds, HmpDone done);
    // What the last word of `line` could become; sorted. Any thread (hmp-complete.cc).
    std::vector<std::string> complete(std::string_view line) const;

 private:
    void add_run_commands();
    void add_migration_commands();
    // Devices, objects, memory's dirty rate (hmp-machine.cc).
    void add_device_commands();
    void add_object_commands();
    void add_dirty_rate_commands();
    void add_machine_infos();
    void query(std::string name, std::string help, std::string qmp_name,
               std::string (*print)(const Json&));
    void add_info_commands();
    void add_help();
    void add(HmpCommand command) { commands_.push_back(std::move(command)); }
    void add_info(HmpCommand command) { infos_.push_back(std::move(command)); }
    // A command that runs one QMP command without arguments and prints nothing but errors.
    void add_plain(std::string name, std::string alias, std::string help, std::string qmp_name);
    // Runs a QMP command; prints its error, or what `print` makes of its answer.
    using Print = std::move_only_function<std::string(const Json&)>;
    void run_qmp(std::string_view name, const Json& arguments, HmpCall call, Print print);
    void migrate(HmpCall call);
    void announce_self(HmpCall call);
    void dispatch(const std::vector<HmpCommand>& commands, std::vector<std::string> words,
                  HmpSource source, MonitorFds& fds, HmpDone done);

    const CommandTable& qmp_;
    HmpHost& host_;
    std::vector<HmpCommand> commands_;
    std::vector<HmpCommand> infos_;  // second words of `info`
};

// human-monitor-command. No line depends on a CPU; `vm` knows which there are to be named.
void add_hmp_command(CommandTable& table, Hmp& hmp, const VmControl& vm);

// Text of `info pci` and others out of the answers of the QMP commands (hmp-machine-info.cc).
std::string kvm_text(const Json& query_kvm);
std::string cpus_text(const Json& query_cpus_fast);
std::string pci_text(const Json& query_pci);
std::string memdev_text(const Json& query_memdev);
std::string dirty_rate_text(const Json& query_dirty_rate);
std::string dirty_limit_text(const Json& query_vcpu_dirty_limit);

// Text of `info migrate` out of query-migrate's answer, and so on (hmp-info.cc).
std::string status_text(const Json& query_status);
std::string migration_text(const Json& query_migrate, const MigrationGlobals& globals = {});
std::string capabilities_text(const Json& query_migrate_capabilities);
std::string parameters_text(const Json& query_migrate_parameters);
std::string version_text(const Json& query_version);

// What a person typed for a parameter, as QMP wants it. InvalidArgument when it can't be read.
Result<Json> parameter_from_text(std::string_view name, const std::string& text);
// "1500", "64k", "2G": bytes, or multiples of `unit` without a suffix.
Result<uint64_t> size_from_text(const std::string& text, uint64_t unit);

}  // namespace ferry::monitor
