// SPDX-License-Identifier: BSD-2-Clause
// The arcs a driver implements are written down; the paths are computed by the compiler.
#include "hw/vfio/mig-state.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>

#include "util/try.h"

namespace ferry::vfio {

namespace {

using enum MigState;

constexpr std::array<std::string_view, kMigStateCount> kNames = {
    "error", "stop", "running", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p",
};

constexpr size_t index_of(MigState state) {
    return static_cast<size_t>(state);
}

// Which devices have an arc. Where RUNNING_P2P exists, RUNNING and STOP are no neighbours, and
// PRE_COPY reaches STOP_COPY through PRE_COPY_P2P only.
enum class Needs : uint8_t { Nothing, P2P, NoP2P, PreCopy, PreCopyAndP2P, PreCopyNoP2P };

struct Arc {
    MigState from;
    MigState to;
    Needs needs;
};

constexpr Arc kArcs[] = {
    {Running, RunningP2P, Needs::P2P},
    {RunningP2P, Running, Needs::P2P},
    {RunningP2P, Stop, Needs::P2P},
    {Stop, RunningP2P, Needs::P2P},
    {Running, Stop, Needs::NoP2P},
    {Stop, Running, Needs::NoP2P},
    {Stop, StopCopy, Needs::Nothing},
    {StopCopy, Stop, Needs::Nothing},
    {Stop, Resuming, Needs::Nothing},
    {Resuming, Stop, Needs::Nothing},
    {Running, PreCopy, Needs::PreCopy},
    {PreCopy, Running, Needs::PreCopy},
    {RunningP2P, PreCopyP2P, Needs::PreCopyAndP2P},
    {PreCopyP2P, RunningP2P, Needs::PreCopyAndP2P},
    {PreCopy, PreCopyP2P, Needs::PreCopyAndP2P},
    {PreCopyP2P, PreCopy, Needs::PreCopyAndP2P},
    {PreCopyP2P, StopCopy, Needs::PreCopyAndP2P},
    {PreCopy, StopCopy, Needs::PreCopyNoP2P},
};

constexpr bool has(MigCaps caps, Needs needs) {
    switch (needs) {
        case Needs::Nothing: return true;
        case Needs::P2P: return caps.p2p;
        case Needs::NoP2P: return !caps.p2p;
        case Needs::PreCopy: return caps.pre_copy;
        case Needs::PreCopyAndP2P: return caps.pre_copy && caps.p2p;
        case Needs::PreCopyNoP2P: return caps.pre_copy && !caps.p2p;
    }
    return false;
}

constexpr SessionKind kind_of(MigState state) {
    switch (state) {
        case PreCopy:
        case PreCopyP2P:
        case StopCopy: return SessionKind::Saving;
        case Resuming: return SessionKind::Resuming;
        case Error:
        case Stop:
        case Running:
        case RunningP2P: return SessionKind::None;
    }
    return SessionKind::None;
}

// A path between two saving states keeps their session, so it stays inside; any other path may
// begin or end in a saving state but not pass through one. That blocks STOP_COPY -> PRE_COPY, too.
constexpr bool may_pass(MigState via, MigState from, MigState to) {
    const bool inside = kind_of(from) == SessionKind::Saving && kind_of(to) == SessionKind::Saving;
    return (kind_of(via) == SessionKind::Saving) == inside;
}

// [from][to]: the state to go to first; Error where there is no way.
using NextHops = std::array<std::array<MigState, kMigStateCount>, kMigStateCount>;

// Breadth first: `first[s]` is the first step of a shortest path to `s`.
constexpr MigState first_hop(MigCaps caps, MigState from, MigState to) {
    std::array<MigState, kMigStateCount> first{};
    std::array<bool, kMigStateCount> reached{};
    std::array<MigState, kMigStateCount> queue{};
    size_t queued = 0;
    reached[index_of(from)] = true;
    queue[queued++] = from;
    for (size_t i = 0; i < queued; ++i) {
        const MigState at = queue[i];
        if (at != from && !may_pass(at, from, to)) continue;
        for (const Arc& arc : kArcs) {
            if (arc.from != at || !has(caps, arc.needs) || reached[index_of(arc.to)]) continue;
            reached[index_of(arc.to)] = true;
            first[index_of(arc.to)] = at == from ? arc.to : first[index_of(at)];
            queue[queued++] = arc.to;
        }
    }
    return first[index_of(to)];
}

constexpr NextHops shortest_paths(MigCaps caps) {
    NextHops hops{};
    for (uint32_t from = 1; from < kMigStateCount; ++from) {
        for (uint32_t to = 1; to < kMigStateCount; ++to) {
            if (from == to) continue;
            hops[from][to] =
                first_hop(caps, static_cast<MigState>(from), static_cast<MigState>(to));
        }
    }
    return hops;
}

constexpr NextHops kPlain = shortest_paths({.stop_copy = true});
constexpr NextHops kP2P = shortest_paths({.stop_copy = true, .p2p = true});
constexpr NextHops kPreCopy = shortest_paths({.stop_copy = true, .pre_copy = true});
constexpr NextHops kAll = shortest_paths({.stop_copy = true, .p2p = true, .pre_copy = true});

constexpr MigState hop(const NextHops& table, MigState from, MigState to) {
    return table[index_of(from)][index_of(to)];
}

// What the uAPI says in prose.
static_assert(hop(kAll, PreCopy, StopCopy) == PreCopyP2P);  // keeps the session
static_assert(hop(kPreCopy, PreCopy, StopCopy) == StopCopy);
static_assert(hop(kAll, PreCopy, Stop) == Running);        // gives it up
static_assert(hop(kAll, RunningP2P, PreCopy) == Running);  // not through PRE_COPY_P2P
static_assert(hop(kAll, Running, PreCopyP2P) == RunningP2P);
static_assert(hop(kAll, Stop, PreCopy) == RunningP2P);
static_assert(hop(kAll, StopCopy, PreCopy) == Error);
static_assert(hop(kAll, StopCopy, PreCopyP2P) == Error);
static_assert(hop(kPlain, Running, RunningP2P) == Error);  // a state the device lacks
static_assert(hop(kP2P, Running, Stop) == RunningP2P);
static_assert(hop(kPlain, Running, Stop) == Stop);
static_assert(hop(kPlain, Resuming, StopCopy) == Stop);

constexpr const NextHops& hops_for(MigCaps caps) {
    if (caps.p2p) return caps.pre_copy ? kAll : kP2P;
    return caps.pre_copy ? kPreCopy : kPlain;
}

ferry::Error refused(MigState from, MigState to, std::string_view why) {
    return ferry::Error(
        ErrorKind::InvalidArgument,
        fmt::format("no way from state {} to {}: {}", to_string(from), to_string(to), why), EINVAL);
}

}  // namespace

std::string_view to_string(MigState state) {
    return kNames[index_of(state)];
}

Result<MigState> mig_state_from_raw(uint32_t raw) {
    if (raw >= kMigStateCount) {
        return make_error(ErrorKind::Protocol, "migration state {} does not exist", raw);
    }
    return static_cast<MigState>(raw);
}

std::optional<MigState> mig_state_from_name(std::string_view name) {
    const auto at = std::ranges::find(kNames, name);
    if (at == kNames.end()) return std::nullopt;
    return static_cast<MigState>(at - kNames.begin());
}

bool state_exists(MigCaps caps, MigState state) {
    switch (state) {
        case RunningP2P: return caps.stop_copy && caps.p2p;
        case PreCopy: return caps.stop_copy && caps.pre_copy;
        case PreCopyP2P: return caps.stop_copy && caps.p2p && caps.pre_copy;
        case Error:
        case Stop:
        case Running:
        case StopCopy:
        case Resuming: return caps.stop_copy;
    }
    return false;
}

SessionKind session_of(MigState state) {
    return kind_of(state);
}

Result<std::vector<MigState>> mig_path(MigCaps caps, MigState from, MigState to) {
    if (!caps.supported()) return refused(from, to, "the device does not migrate");
    if (from == Error) return refused(from, to, "only a reset leaves it");
    if (to == Error) return refused(from, to, "it cannot be asked for");
    if (!state_exists(caps, from) || !state_exists(caps, to)) {
        return refused(from, to, "the device lacks such a state");
    }
    const NextHops& table = hops_for(caps);
    std::vector<MigState> path;
    for (MigState at = from; at != to;) {
        at = hop(table, at, to);
        if (at == Error) return refused(from, to, "a session that stopped cannot go back");
        path.push_back(at);
    }
    return path;
}

}  // namespace ferry::vfio
