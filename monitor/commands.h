// SPDX-License-Identifier: BSD-2-Clause
// The commands of this monitor, in groups. Names, arguments, answers and texts are QMP's:
// docs/interop/qmp-reference.rst.
#pragma once

#include "monitor/command.h"
#include "monitor/events.h"
#include "monitor/qmp-server.h"
#include "monitor/run-control.h"
#include "monitor/vm-control.h"

namespace ferry::monitor {

// query-version's answer: the level of QMP that is followed, and what follows it.
Json version_info();

// What the commands work on; all outlive the table.
struct CommandContext {
    VmControl& vm;
    RunControl& run;
    QmpServer& server;
    Events& events;
};

// stop, cont, quit, system_reset, device_del and what they are about (commands-run.cc).
void add_run_commands(CommandTable& table, CommandContext context);
// query-version, query-commands, query-machines, ... (commands-info.cc)
void add_info_commands(CommandTable& table, VmControl& vm);
// getfd, closefd, add-fd, remove-fd, query-fdsets (commands-fd.cc)
void add_fd_commands(CommandTable& table);
// migrate and its kin (commands-migration.cc).
void add_migration_commands(CommandTable& table, VmControl& vm);
// migrate-start-postcopy, migrate-pause, migrate-recover (commands-migration.cc).
void add_postcopy_commands(CommandTable& table);
// query-qmp-schema (commands-schema.cc), of all commands in the table when it is asked.
void add_schema_command(CommandTable& table);
// migrate-set-parameters, migrate-set-capabilities and their queries (commands-settings.cc).
void add_setting_commands(CommandTable& table, VmControl& vm);

}  // namespace ferry::monitor
