// SPDX-License-Identifier: BSD-2-Clause
// -global migration.NAME=VALUE: settings of migrations that are there from the start.
#pragma once

#include "migration/migration.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// Names as QEMU has them: capabilities as x-NAME, parameters with or without x-, and those that say
// what of a stream is sent. InvalidArgument names the option.
Result<> preset_migration(migration::Migration& migration, const MigrationPresets& presets);

}  // namespace ferry::vmm
