// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "tests/support/mig-states.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using test::kAll;
using test::kP2P;
using test::kPlain;
using test::kPreCopy;

const std::vector<std::pair<std::string, MigState>> kShortNames = {
    {"S", Stop},        {"R", Running},  {"SC", StopCopy},   {"RS", Resuming},
    {"RP", RunningP2P}, {"PC", PreCopy}, {"PP", PreCopyP2P},
};

std::string short_name(MigState state) {
    return std::ranges::find(kShortNames, state, &std::pair<std::string, MigState>::second)->first;
}

MigState by_short_name(const std::string& name) {
    return std::ranges::find(kShortNames, name, &std::pair<std::string, MigState>::first)->second;
}

// What the first step does to the session of the state it leaves, what the last one begins.
std::string session_mark(MigState from, MigState to) {
    const SessionKind had = session_of(from), has = session_of(to);
    if (had != SessionKind::None) return had == has ? "=" : "!";
    return has != SessionKind::None ? "*" : "";
}

std::string cell(MigCaps caps, MigState from, MigState to) {
    const auto path = mig_path(caps, from, to);
    if (!path) return path.error().errnum() == EINVAL ? "EINVAL" : path.error().message();
    std::string text;
    MigState at = from;
    for (const MigState next : *path) {
        text += (text.empty() ? "" : " ") + short_name(next) + session_mark(at, next);
        at = next;
    }
    return text.empty() ? "-" : text;
}

std::vector<std::string> split_row(const std::string& line) {
    std::vector<std::string> cells;
    std::istringstream in(line);
    for (std::string text; std::getline(in, text, '|');) {
        const size_t first = text.find_first_not_of(' ');
        cells.push_back(text.substr(first, text.find_last_not_of(' ') - first + 1));
    }
    return cells;
}

// Rows: from; columns: to. "!" the step ends a session, "=" goes on with it, "*" begins one.
void expect_table(MigCaps caps, const std::string& table) {
    std::istringstream lines(table);
    std::string line;
    std::getline(lines, line);
    const auto header = split_row(line);
    size_t rows = 0;
    for (; std::getline(lines, line); ++rows) {
        const auto expected = split_row(line);
        ASSERT_EQ(expected.size(), header.size()) << line;
        for (size_t i = 1; i < header.size(); ++i) {
            EXPECT_EQ(cell(caps, by_short_name(expected[0]), by_short_name(header[i])), expected[i])
                << expected[0] << " -> " << header[i];
        }
    }
    EXPECT_EQ(rows, header.size() - 1);
}

// The four tables are what Linux 6.12's own step function answers.
TEST(MigPath, OfADeviceWithStopCopyOnlyIsTheKernels) {
    expect_table(kPlain,
                 "-  | S  | R    | SC     | RS     \n"
                 "S  | -  | R    | SC*    | RS*    \n"
                 "R  | S  | -    | S SC*  | S RS*  \n"
                 "SC | S! | S! R | -      | S! RS* \n"
                 "RS | S! | S! R | S! SC* | -      \n");
}

TEST(MigPath, OfADeviceWithP2PIsTheKernels) {
    expect_table(kP2P,
                 "-  | S    | R       | SC       | RS       | RP    \n"
                 "S  | -    | RP R    | SC*      | RS*      | RP    \n"
                 "R  | RP S | -       | RP S SC* | RP S RS* | RP    \n"
                 "SC | S!   | S! RP R | -        | S! RS*   | S! RP \n"
                 "RS | S!   | S! RP R | S! SC*   | -        | S! RP \n"
                 "RP | S    | R       | S SC*    | S RS*    | -     \n");
}

TEST(MigPath, OfADeviceWithPreCopyIsTheKernels) {
    expect_table(kPreCopy,
                 "-  | S    | R    | SC     | RS       | PC       \n"
                 "S  | -    | R    | SC*    | RS*      | R PC*    \n"
                 "R  | S    | -    | S SC*  | S RS*    | PC*      \n"
                 "SC | S!   | S! R | -      | S! RS*   | EINVAL   \n"
                 "RS | S!   | S! R | S! SC* | -        | S! R PC* \n"
                 "PC | R! S | R!   | SC=    | R! S RS* | -        \n");
}

TEST(MigPath, OfADeviceWithEverythingIsTheKernels) {
    expect_table(
        kAll,
        "-  | S       | R       | SC       | RS          | RP    | PC          | PP        \n"
        "S  | -       | RP R    | SC*      | RS*         | RP    | RP R PC*    | RP PP*    \n"
        "R  | RP S    | -       | RP S SC* | RP S RS*    | RP    | PC*         | RP PP*    \n"
        "SC | S!      | S! RP R | -        | S! RS*      | S! RP | EINVAL      | EINVAL    \n"
        "RS | S!      | S! RP R | S! SC*   | -           | S! RP | S! RP R PC* | S! RP PP* \n"
        "RP | S       | R       | S SC*    | S RS*       | -     | R PC*       | PP*       \n"
        "PC | R! RP S | R!      | PP= SC=  | R! RP S RS* | R! RP | -           | PP=       \n"
        "PP | RP! S   | RP! R   | SC=      | RP! S RS*   | RP!   | PC=         | -         \n");
}

TEST(MigPath, OutOfErrorIsRefused) {
    EXPECT_EQ(cell(kAll, MigState::Error, Running), "EINVAL");
    EXPECT_EQ(cell(kAll, MigState::Error, MigState::Error), "EINVAL");
}

TEST(MigPath, ToErrorIsRefused) {
    EXPECT_EQ(cell(kAll, Running, MigState::Error), "EINVAL");
}

TEST(MigPath, ToAStateTheDeviceLacksIsRefused) {
    EXPECT_EQ(cell(kPlain, Running, RunningP2P), "EINVAL");
    EXPECT_EQ(cell(kP2P, Running, PreCopy), "EINVAL");
    EXPECT_EQ(cell(kPreCopy, Running, PreCopyP2P), "EINVAL");
    EXPECT_EQ(cell(kPreCopy, RunningP2P, RunningP2P), "EINVAL");
}

TEST(MigPath, OfADeviceThatDoesNotMigrateIsRefused) {
    EXPECT_EQ(cell({}, Running, Stop), "EINVAL");
    EXPECT_EQ(cell({.p2p = true}, Running, Stop), "EINVAL");
}

TEST(MigPath, RefusalNamesBothStates) {
    const auto path = mig_path(kAll, StopCopy, PreCopy);
    ASSERT_FALSE(path);
    EXPECT_EQ(path.error().kind(), ErrorKind::InvalidArgument);
    EXPECT_NE(path.error().message().find("stop-copy"), std::string::npos);
    EXPECT_NE(path.error().message().find("pre-copy"), std::string::npos);
}

TEST(MigState, ValueFromOutsideBeyondTheLastIsRefused) {
    EXPECT_FALSE(mig_state_from_raw(8));
    EXPECT_FALSE(mig_state_from_raw(~0U));
}

TEST(MigState, ValuesAndNamesAreTheKernelsAndQmps) {
    const std::map<uint32_t, std::string> expected = {
        {0, "error"},    {1, "stop"},        {2, "running"},  {3, "stop-copy"},
        {4, "resuming"}, {5, "running-p2p"}, {6, "pre-copy"}, {7, "pre-copy-p2p"},
    };
    for (const auto& [raw, name] : expected) {
        const auto state = mig_state_from_raw(raw);
        ASSERT_TRUE(state);
        EXPECT_EQ(to_string(*state), name);
        EXPECT_EQ(mig_state_from_name(name), *state);
    }
    EXPECT_EQ(mig_state_from_name("precopy"), std::nullopt);
}

TEST(MigState, ExistsAsTheFlagsSay) {
    for (const MigState state : {MigState::Error, Stop, Running, StopCopy, Resuming}) {
        EXPECT_TRUE(state_exists(kPlain, state)) << to_string(state);
    }
    EXPECT_TRUE(state_exists(kP2P, RunningP2P));
    EXPECT_FALSE(state_exists(kPreCopy, RunningP2P));
    EXPECT_TRUE(state_exists(kPreCopy, PreCopy));
    EXPECT_FALSE(state_exists(kP2P, PreCopy));
    EXPECT_TRUE(state_exists(kAll, PreCopyP2P));
    EXPECT_FALSE(state_exists(kPreCopy, PreCopyP2P));
    EXPECT_FALSE(state_exists({}, Running));
}

}  // namespace
}  // namespace ferry::vfio
