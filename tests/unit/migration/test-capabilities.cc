// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "migration/blocker.h"
#include "migration/capabilities.h"

namespace ferry::migration {
namespace {

Capabilities only(Capability capability) {
    Capabilities out;
    out.set(capability, true);
    return out;
}

TEST(Capabilities, WhatIsMissingHereIsRefusedByName) {
    const std::set<Capability> fine = {
        Capability::AutoConverge,          Capability::Events,       Capability::ReturnPath,
        Capability::PauseBeforeSwitchover, Capability::Multifd,      Capability::LateBlockActivate,
        Capability::DirtyBitmaps,          Capability::ValidateUuid, Capability::ZeroBlocks};
    for (size_t i = 0; i < kCapabilityCount; ++i) {
        const auto capability = static_cast<Capability>(i);
        const auto result = check_capabilities(only(capability));
        EXPECT_EQ(result.has_value(), fine.contains(capability)) << to_string(capability);
        if (!result) {
            EXPECT_NE(result.error().message().find(to_string(capability)), std::string::npos);
        }
    }
    EXPECT_EQ(check_capabilities(only(Capability::Xbzrle)).error().message(),
              "Capability 'xbzrle' is not supported by this build");
    EXPECT_TRUE(check_capabilities({}));
}

TEST(Capabilities, SwitchoverAckNeedsAReturnPath) {
    Capabilities wanted = only(Capability::SwitchoverAck);
    EXPECT_EQ(check_capabilities(wanted).error().message(),
              "Capability 'switchover-ack' requires capability 'return-path'");
    wanted.set(Capability::ReturnPath, true);
    EXPECT_TRUE(check_capabilities(wanted));
}

TEST(Capabilities, NamesGoBothWaysInTheOrderOfQmp) {
    for (size_t i = 0; i < kCapabilityCount; ++i) {
        const auto capability = static_cast<Capability>(i);
        EXPECT_EQ(*capability_from_name(to_string(capability)), capability);
    }
    EXPECT_EQ(to_string(Capability::Xbzrle), "xbzrle");
    EXPECT_EQ(to_string(Capability::MappedRam), "mapped-ram");
    EXPECT_EQ(capability_from_name("warp").error().message(),
              "Parameter 'capability' does not accept value 'warp'");
}

TEST(Parameters, DefaultsLieInTheirRangesAndLimitsAreInclusive) {
    Parameters parameters;
    EXPECT_EQ(parameters.downtime_limit_ms, 300U);
    for (const ParameterInfo& info : parameter_table()) {
        EXPECT_TRUE(set_parameter(parameters, info.name, Parameters{}.*info.value)) << info.name;
        EXPECT_TRUE(set_parameter(parameters, info.name, info.minimum)) << info.name;
        EXPECT_TRUE(set_parameter(parameters, info.name, info.maximum)) << info.name;
        EXPECT_EQ(parameters.*info.value, info.maximum);
    }
}

TEST(Parameters, OutOfRangeIsRefusedAndChangesNothing) {
    Parameters parameters;
    EXPECT_EQ(set_parameter(parameters, "downtime-limit", 2'000'001).error().message(),
              "Parameter 'downtime_limit' expects a value between 0 and 2000000");
    EXPECT_EQ(set_parameter(parameters, "x-peer-timeout", 999).error().message(),
              "Parameter 'x_peer_timeout' expects a value between 1000 and 86400000");
    EXPECT_EQ(set_parameter(parameters, "warp-factor", 9).error().kind(),
              ErrorKind::InvalidArgument);
    EXPECT_EQ(parameters.downtime_limit_ms, 300U);
    EXPECT_EQ(parameters.x_peer_timeout_ms, 60'000U);
}

TEST(BlockerList, RefusesWithTheErrnoThatSaysWhy) {
    BlockerList busy;
    busy.set_busy(true);
    auto refused = busy.add("device x");
    EXPECT_EQ(refused.error().kind(), ErrorKind::InvalidState);
    EXPECT_EQ(refused.error().errnum(), EBUSY);
    EXPECT_NE(refused.error().message().find("device x"), std::string::npos);
    EXPECT_TRUE(busy.check());

    BlockerList strict;
    strict.set_only_migratable();
    EXPECT_EQ(strict.add("device y").error().errnum(), EACCES);
}

TEST(BlockerList, FirstReasonIsTheErrorUntilItsOwnerTakesItBack) {
    BlockerList list;
    auto first = list.add("first reason");
    ASSERT_TRUE(first);
    auto second = list.add("second reason");
    ASSERT_TRUE(second);
    EXPECT_EQ(list.check().error().message(), "first reason");
    EXPECT_EQ(list.reasons(), (std::vector<std::string>{"first reason", "second reason"}));
    first->reset();
    EXPECT_EQ(list.check().error().message(), "second reason");
    second->reset();
    EXPECT_TRUE(list.check());
}

}  // namespace
}  // namespace ferry::migration
