// SPDX-License-Identifier: BSD-2-Clause
// Migration capabilities and parameters: one table each (migration/capabilities.cc,
// migration/parameters.cc). Names, defaults, ranges and texts are QMP's.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/clock.h"
#include "util/result.h"

namespace ferry::migration {

enum class Capability : uint8_t {
    Xbzrle,
    RdmaPinAll,
    AutoConverge,
    ZeroBlocks,
    Events,
    PostcopyRam,
    XColo,
    ReleaseRam,
    ReturnPath,
    PauseBeforeSwitchover,
    Multifd,
    DirtyBitmaps,
    PostcopyBlocktime,
    LateBlockActivate,
    XIgnoreShared,
    ValidateUuid,
    BackgroundSnapshot,
    ZeroCopySend,
    PostcopyPreempt,
    SwitchoverAck,
    DirtyLimit,
    MappedRam,
};
inline constexpr size_t kCapabilityCount = static_cast<size_t>(Capability::MappedRam) + 1;

std::string_view to_string(Capability capability);  // "return-path"
Result<Capability> capability_from_name(std::string_view name);

// A set of switches; a value.
class Capabilities {
 public:
    bool has(Capability capability) const { return on_[static_cast<size_t>(capability)]; }
    void set(Capability capability, bool on) { on_[static_cast<size_t>(capability)] = on; }

 private:
    std::array<bool, kCapabilityCount> on_{};
};
// Whether the whole set makes sense, and whether each that is on exists here.
Result<> check_capabilities(const Capabilities& wanted);

// Values in the units of their names. The table in parameters.cc gives range and text per name.
struct Parameters {
    uint64_t max_bandwidth_bytes_per_s = 128 * 1024 * 1024;  // 0 = unlimited; precopy only
    uint64_t avail_switchover_bandwidth_bytes_per_s = 0;     // 0 = measure
    uint64_t downtime_limit_ms = 300;
    // Auto-converge, all in percent: of what is sent, so much may be dirtied; the CPUs' first
    // sleep, what is added, whether only as much as is needed (0 or 1), and the most.
    uint64_t throttle_trigger_threshold = 50;
    uint64_t cpu_throttle_initial = 20;
    uint64_t cpu_throttle_increment = 10;
    uint64_t cpu_throttle_tailslow = 0;
    uint64_t max_cpu_throttle = 99;
    uint64_t multifd_channels = 2;        // page channels, read when an attempt begins
    uint64_t multifd_compression = 0;     // a MultifdCompression; the same on both sides
    uint64_t multifd_zlib_level = 1;      // 0 (stored only) to 9
    uint64_t multifd_zstd_level = 1;      // 1 to 20; 0 is zstd's own choice
    uint64_t zero_page_detection = 2;     // a ZeroPageDetection
    uint64_t x_peer_timeout_ms = 60'000;  // a peer silent for so long has failed
};
// Who looks for pages of zeros: nobody, the migration thread, or the threads of multifd.
enum class ZeroPageDetection : uint8_t { None, Legacy, Multifd };
// Of the pages on the page channels.
enum class MultifdCompression : uint8_t { None, Zlib, Zstd };
std::string_view to_string(MultifdCompression method);

struct ParameterInfo {
    std::string_view name;
    uint64_t Parameters::* value;
    uint64_t minimum;
    uint64_t maximum;
    std::string_view unit;  // as `info migrate_parameters` prints it, e.g. " ms"
};
std::span<const ParameterInfo> parameter_table();
// InvalidArgument with QMP's text when the name is unknown or the value out of range.
Result<> set_parameter(Parameters& parameters, std::string_view name, uint64_t value);
// Whether the values fit each other.
Result<> check_parameters(const Parameters& wanted);

}  // namespace ferry::migration
