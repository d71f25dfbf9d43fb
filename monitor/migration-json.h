// SPDX-License-Identifier: BSD-2-Clause
// Migration addresses out of a command's arguments, and query-migrate's answer.
#pragma once

#include <string>
#include <vector>

#include "hw/vfio/vfio-migration.h"
#include "migration/migration.h"
#include "monitor/json.h"
#include "monitor/schema.h"
#include "util/activity.h"
#include "util/clock.h"
#include "util/timeline.h"

namespace ferry::monitor {

// The arguments `uri` and `channels`, of which a command wants exactly one.
std::vector<Member> address_schema();
// Which entries a list of channels may have.
enum class ChannelRule : uint8_t { AnyOncePerType, OnlyMain };
Result<migration::MigrationAddress> address_from_arguments(
    const Json& arguments, ChannelRule rule = ChannelRule::AnyOncePerType);

// A channel as -incoming takes it: one entry of `channels`. Only its main kind can be used.
Result<migration::MigrationAddress> address_from_channel(const Json& channel);

// Everything that query-migrate tells, taken at one moment.
struct MigrationView {
    migration::MigrationInfo info;
    std::vector<std::string> blocked_reasons;
    std::vector<vfio::VfioDeviceMigrationInfo> vfio_devices;
    std::vector<util::PendingCall> pending_calls;
    util::Nanoseconds now{};
    std::vector<util::Span> timeline;
};
Json to_json(const MigrationView& view);

}  // namespace ferry::monitor
