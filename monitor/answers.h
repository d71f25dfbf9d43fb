// SPDX-License-Identifier: BSD-2-Clause
// What commands and events tell, as query-qmp-schema describes it: what more than one of them has,
// and what is too long to stand beside its command.
#pragma once

#include "monitor/schema.h"

namespace ferry::monitor {

Schema migration_statuses();  // all of QMP's, also those that only postcopy and others have
Schema run_states();
Schema version_answer();
Schema machine_answer();    // one of query-machines
Schema socket_address();    // where a destination listens
Schema migration_answer();  // query-migrate
Schema schema_entity();     // one of query-qmp-schema

}  // namespace ferry::monitor
