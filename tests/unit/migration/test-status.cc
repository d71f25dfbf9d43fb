// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <utility>

#include "migration/status.h"
#include "tests/support/test-env.h"

namespace ferry::migration {
namespace {

using enum MigrationStatus;
using Arcs = std::set<std::pair<MigrationStatus, MigrationStatus>>;
constexpr auto kSetup = MigrationStatus::Setup;  // gtest's fixtures have a Setup of their own
constexpr std::array kAll = {None,      Setup,  Cancelling,    Cancelled, Active,
                             Completed, Failed, PreSwitchover, Device};

const Arcs kSource = {
    {None, Setup},
    {Completed, Setup},
    {Failed, Setup},
    {Cancelled, Setup},
    {Setup, Active},
    {Active, PreSwitchover},
    {Active, Device},
    {PreSwitchover, Device},
    {Device, Completed},
    {Setup, Failed},
    {Active, Failed},
    {PreSwitchover, Failed},
    {Device, Failed},
    {Setup, Cancelling},
    {Active, Cancelling},
    {Device, Cancelling},
    {PreSwitchover, Cancelling},
    {Cancelling, Cancelled},
    {Cancelling, Completed},
    {Cancelling, Failed},
};
const Arcs kDestination = {
    {None, Setup},   {Completed, Setup}, {Failed, Setup},  {Cancelled, Setup},
    {Setup, Active}, {Setup, Failed},    {Active, Failed}, {Active, Completed},
};

// Shortest way from none to `to`, along the arcs under test; empty when there is none.
std::vector<MigrationStatus> path_to(const Arcs& arcs, MigrationStatus to) {
    std::vector<std::vector<MigrationStatus>> paths{{None}};
    std::set<MigrationStatus> seen{None};
    for (size_t i = 0; i < paths.size(); ++i) {
        if (paths[i].back() == to) return paths[i];
        for (const auto& [from, next] : arcs) {
            if (from != paths[i].back() || !seen.insert(next).second) continue;
            auto longer = paths[i];
            longer.push_back(next);
            paths.push_back(std::move(longer));
        }
    }
    return {};
}

void expect_exactly(Role role, const Arcs& arcs) {
    for (const MigrationStatus from : kAll) {
        const auto path = path_to(arcs, from);
        if (path.empty()) continue;
        for (const MigrationStatus to : kAll) {
            test::TestEnv env;
            StatusMachine status(role, env.env, nullptr);
            for (size_t i = 1; i < path.size(); ++i) ASSERT_TRUE(status.advance(path[i]));
            const auto result = status.advance(to);
            EXPECT_EQ(result.has_value(), arcs.contains({from, to}))
                << to_string(from) << " -> " << to_string(to);
            EXPECT_EQ(status.get(), result ? to : from);
        }
    }
}

TEST(StatusMachine, SourceHasTheDocumentedArcsAndNoOthers) {
    expect_exactly(Role::Source, kSource);
    for (const MigrationStatus status : kAll) EXPECT_FALSE(path_to(kSource, status).empty());
}

TEST(StatusMachine, DestinationHasTheDocumentedArcsAndNoOthers) {
    expect_exactly(Role::Destination, kDestination);
    EXPECT_TRUE(path_to(kDestination, Cancelling).empty());
    EXPECT_TRUE(path_to(kDestination, Device).empty());
}

TEST(StatusMachine, WrongArcNamesBothStatesAndTellsNobody) {
    test::TestEnv env;
    int told = 0;
    StatusMachine status(Role::Source, env.env, [&](MigrationStatus) { ++told; });
    const auto result = status.advance(Completed);
    EXPECT_EQ(result.error().kind(), ErrorKind::InvalidState);
    EXPECT_EQ(result.error().message(),
              "an outgoing migration in status 'none' can't become 'completed'");
    EXPECT_EQ(told, 0);
}

TEST(StatusMachine, WhoeverAdvancesAfterACancelLearnsOfIt) {
    test::TestEnv env;
    StatusMachine status(Role::Source, env.env, nullptr);
    for (const auto to : {kSetup, Active, Cancelling}) ASSERT_TRUE(status.advance(to));
    EXPECT_EQ(status.advance(Device).error().kind(), ErrorKind::Cancelled);
    EXPECT_EQ(status.advance(PreSwitchover).error().kind(), ErrorKind::Cancelled);
    ASSERT_TRUE(status.advance(Cancelled));
    EXPECT_EQ(status.advance(Completed).error().kind(), ErrorKind::Cancelled);
    EXPECT_TRUE(status.advance(kSetup));  // the next attempt
}

TEST(StatusMachine, ListenersHearRacingChangesInTheirOrder) {
    for (int round = 0; round < 50; ++round) {
        test::TestEnv env;
        std::vector<MigrationStatus> heard;  // no lock: the machine lets one in at a time
        StatusMachine status(Role::Source, env.env,
                             [&](MigrationStatus now) { heard.push_back(now); });
        ASSERT_TRUE(status.advance(kSetup));
        std::jthread cancel([&] {
            for (const auto to : {Cancelling, Cancelled}) {
                if (!status.advance(to)) return;
            }
        });
        std::jthread work([&] {
            for (const auto to : {Active, Device, Completed}) {
                if (!status.advance(to)) return;
            }
        });
        cancel.join();
        work.join();
        for (size_t i = 1; i < heard.size(); ++i) {
            EXPECT_TRUE(kSource.contains({heard[i - 1], heard[i]}));
        }
        EXPECT_EQ(heard.back(), status.get());
    }
}

TEST(MigrationStatus, NamesGoBothWays) {
    for (const MigrationStatus status : kAll) {
        EXPECT_EQ(*status_from_name(to_string(status)), status);
    }
    EXPECT_EQ(to_string(PreSwitchover), "pre-switchover");
    EXPECT_EQ(status_from_name("running").error().message(),
              "Parameter 'state' does not accept value 'running'");
}

TEST(MigrationStatus, InProgressIsAllButTheEnds) {
    const std::set<MigrationStatus> ends{None, Completed, Failed, Cancelled};
    for (const MigrationStatus status : kAll) {
        EXPECT_EQ(is_in_progress(status), !ends.contains(status)) << to_string(status);
    }
}

}  // namespace
}  // namespace ferry::migration
