// SPDX-License-Identifier: BSD-2-Clause
#include "migration/capabilities.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::migration {

namespace {

// What this build can do with a capability that is switched on.
enum class Support : uint8_t { Works, Ignored, Missing };

struct CapabilityInfo {
    Capability capability;
    std::string_view name;
    Support support;
};
// In the order in which query-migrate-capabilities lists them.
constexpr std::array kTable = {
    CapabilityInfo{Capability::Xbzrle, "xbzrle", Support::Missing},
    CapabilityInfo{Capability::RdmaPinAll, "rdma-pin-all", Support::Missing},
    CapabilityInfo{Capability::AutoConverge, "auto-converge", Support::Works},
    CapabilityInfo{Capability::ZeroBlocks, "zero-blocks", Support::Ignored},
    CapabilityInfo{Capability::Events, "events", Support::Works},
    CapabilityInfo{Capability::PostcopyRam, "postcopy-ram", Support::Missing},
    CapabilityInfo{Capability::XColo, "x-colo", Support::Missing},
    CapabilityInfo{Capability::ReleaseRam, "release-ram", Support::Missing},
    CapabilityInfo{Capability::ReturnPath, "return-path", Support::Works},
    CapabilityInfo{Capability::PauseBeforeSwitchover, "pause-before-switchover", Support::Works},
    CapabilityInfo{Capability::Multifd, "multifd", Support::Works},
    CapabilityInfo{Capability::DirtyBitmaps, "dirty-bitmaps", Support::Ignored},
    CapabilityInfo{Capability::PostcopyBlocktime, "postcopy-blocktime", Support::Missing},
    CapabilityInfo{Capability::LateBlockActivate, "late-block-activate", Support::Ignored},
    CapabilityInfo{Capability::XIgnoreShared, "x-ignore-shared", Support::Missing},
    CapabilityInfo{Capability::ValidateUuid, "validate-uuid", Support::Works},
    CapabilityInfo{Capability::BackgroundSnapshot, "background-snapshot", Support::Missing},
    CapabilityInfo{Capability::ZeroCopySend, "zero-copy-send", Support::Missing},
    CapabilityInfo{Capability::PostcopyPreempt, "postcopy-preempt", Support::Missing},
    CapabilityInfo{Capability::SwitchoverAck, "switchover-ack", Support::Works},
    CapabilityInfo{Capability::DirtyLimit, "dirty-limit", Support::Missing},
    CapabilityInfo{Capability::MappedRam, "mapped-ram", Support::Missing},
};
static_assert(kTable.size() == kCapabilityCount);
static_assert(std::ranges::is_sorted(kTable, {}, &CapabilityInfo::capability));

const CapabilityInfo& info(Capability capability) {
    return kTable[static_cast<size_t>(capability)];
}

// `capability` makes no sense without `needed`.
struct Requirement {
    Capability capability;
    Capability needed;
};
constexpr std::array kRequirements = {
    Requirement{Capability::SwitchoverAck, Capability::ReturnPath},
};

}  // namespace

std::string_view to_string(Capability capability) {
    return info(capability).name;
}

Result<Capability> capability_from_name(std::string_view name) {
    const auto found = std::ranges::find(kTable, name, &CapabilityInfo::name);
    if (found == kTable.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter 'capability' does not accept value '{}'", name);
    }
    return found->capability;
}

Result<> check_capabilities(const Capabilities& wanted) {
    for (const CapabilityInfo& entry : kTable) {
        if (wanted.has(entry.capability) && entry.support == Support::Missing) {
            return make_error(ErrorKind::Unsupported,
                              "Capability '{}' is not supported by this build", entry.name);
        }
    }
    for (const Requirement& rule : kRequirements) {
        if (wanted.has(rule.capability) && !wanted.has(rule.needed)) {
            return make_error(ErrorKind::InvalidArgument,
                              "Capability '{}' requires capability '{}'",
                              to_string(rule.capability), to_string(rule.needed));
        }
    }
    return {};
}

}  // namespace ferry::migration
