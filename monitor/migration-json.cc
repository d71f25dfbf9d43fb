// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/migration-json.h"

#include <chrono>

namespace ferry::monitor {

using migration::MigrationCounters;
using migration::MigrationInfo;
using migration::MigrationStatus;
using migration::Role;

namespace {

// The statuses in which a source tells its counters.
bool shows_counters(MigrationStatus status) {
    switch (status) {
        case MigrationStatus::Active:
        case MigrationStatus::Cancelling:
        case MigrationStatus::PreSwitchover:
        case MigrationStatus::Device:
        case MigrationStatus::Completed: return true;
        case MigrationStatus::None:
        case MigrationStatus::Setup:
        case MigrationStatus::Cancelled:
        case MigrationStatus::Failed: return false;
    }
    return false;
}

Json ram_json(const MigrationCounters& counters) {
    constexpr uint64_t kPageSize = system::kPageSize;
    return {{"transferred", counters.transferred},
            {"remaining", counters.remaining},
            {"total", counters.total},
            {"duplicate", counters.duplicate},
            {"normal", counters.normal},
            {"normal-bytes", counters.normal * kPageSize},
            {"dirty-pages-rate", counters.dirty_pages_rate},
            {"mbps", counters.mbps},
            {"dirty-sync-count", counters.dirty_sync_count},
            {"dirty-sync-missed-zero-copy", 0},
            {"postcopy-requests", 0},
            {"page-size", kPageSize},
            {"multifd-bytes", counters.multifd_bytes},
            {"precopy-bytes", counters.precopy_bytes},
            {"downtime-bytes", counters.downtime_bytes},
            {"postcopy-bytes", 0},
            {"pages-per-second", counters.pages_per_second}};
}

void add_counters(Json& out, const MigrationInfo& info) {
    const MigrationCounters& counters = *info.counters;
    out["ram"] = ram_json(counters);
    out["total-time"] = counters.total_time_ms;
    out["setup-time"] = counters.setup_time_ms;
    const bool completed = info.status == MigrationStatus::Completed;
    if (!completed && counters.expected_downtime_ms) {
        out["expected-downtime"] = *counters.expected_downtime_ms;
    }
    if (counters.cpu_throttle_percentage != 0) {
        out["cpu-throttle-percentage"] = counters.cpu_throttle_percentage;
    }
    if (completed && counters.downtime_ms) out["downtime"] = *counters.downtime_ms;
    if (counters.vfio_transferred) out["vfio"]["transferred"] = *counters.vfio_transferred;
}

void add_vfio_devices(Json& out, const std::vector<vfio::VfioDeviceMigrationInfo>& devices) {
    if (devices.empty()) return;
    Json& vfio = out["vfio"];
    if (!vfio.contains("transferred")) vfio["transferred"] = 0;
    vfio["devices"] = Json::array();
    for (const auto& device : devices) {
        vfio["devices"].push_back({{"id", device.id},
                                   {"state", device.state},
                                   {"sent", device.sent_bytes},
                                   {"loaded", device.loaded_bytes}});
    }
}

// A list of SocketAddress: only for transports that have one.
Json listening_json(const migration::MigrationAddress& address) {
    if (const auto* tcp = std::get_if<migration::TcpAddress>(&address)) {
        const bool ipv6 = tcp->host.find(':') != std::string::npos;
        return Json::array({Json{{"type", "inet"},
                                 {"host", tcp->host},
                                 {"port", tcp->port},
                                 {ipv6 ? "ipv6" : "ipv4", true}}});
    }
    if (const auto* path = std::get_if<migration::UnixAddress>(&address)) {
        Json local{{"type", "unix"}, {"path", path->path}};
        if (path->is_abstract()) {
            local["abstract"] = true;
            local["tight"] = path->space == migration::UnixAddress::Space::Abstract;
        }
        return Json::array({std::move(local)});
    }
    return nullptr;
}

void add_pending_calls(Json& out, const MigrationView& view) {
    if (view.pending_calls.empty()) return;
    using std::chrono::duration_cast;
    Json list = Json::array();
    for (const util::PendingCall& call : view.pending_calls) {
        const auto age = duration_cast<std::chrono::milliseconds>(view.now - call.since);
        list.push_back({{"who", call.who}, {"call", call.call}, {"pending-ms", age.count()}});
    }
    out["x-pending-calls"] = std::move(list);
}

void add_timeline(Json& out, const std::vector<util::Span>& timeline) {
    if (timeline.empty()) return;
    Json list = Json::array();
    for (const util::Span& span : timeline) {
        list.push_back({{"who", span.who},
                        {"step", span.step},
                        {"begin-ns", span.begin.count()},
                        {"end-ns", span.end.count()},
                        {"bytes", span.bytes}});
    }
    out["x-timeline"] = std::move(list);
}

}  // namespace

Json to_json(const MigrationView& view) {
    const MigrationInfo& info = view.info;
    Json out = Json::object();
    if (info.status != MigrationStatus::None) out["status"] = to_string(info.status);
    const bool source = info.role == Role::Source;
    if (source && info.counters && shows_counters(info.status)) add_counters(out, info);
    // A destination has no counters; what its devices have loaded is worth knowing in any status.
    if (source ? shows_counters(info.status) : info.status != MigrationStatus::None) {
        add_vfio_devices(out, view.vfio_devices);
    }
    if (info.error_desc) out["error-desc"] = *info.error_desc;
    if (!view.blocked_reasons.empty()) out["blocked-reasons"] = view.blocked_reasons;
    if (info.listening) {
        if (Json list = listening_json(*info.listening); !list.is_null()) {
            out["socket-address"] = std::move(list);
        }
    }
    add_pending_calls(out, view);
    add_timeline(out, view.timeline);
    return out;
}

}  // namespace ferry::monitor
