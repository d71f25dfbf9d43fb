// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "migration/auto-converge.h"
#include "tests/support/test-vm.h"

namespace ferry::migration {
namespace {

constexpr uint64_t kSent = 1000;
constexpr uint64_t kTooMuch = 501;  // more than the default half of what is sent

// Two busy periods.
unsigned step(ThrottleRule& rule, const Parameters& limits, uint64_t dirtied = kTooMuch) {
    rule.after_period(dirtied, kSent, limits);
    return rule.after_period(dirtied, kSent, limits);
}

TEST(ThrottleRule, GuestThatDirtiesLessThanItsShareIsLeftAlone) {
    ThrottleRule rule;
    for (int period = 0; period < 10; ++period) EXPECT_EQ(rule.after_period(500, kSent, {}), 0);
}

TEST(ThrottleRule, OneBusyPeriodIsNotEnough) {
    ThrottleRule rule;
    EXPECT_EQ(rule.after_period(kTooMuch, kSent, {}), 0);
    EXPECT_EQ(rule.after_period(kTooMuch, kSent, {}), 20);
}

TEST(ThrottleRule, GrowsByTheIncrementUpToTheCeiling) {
    ThrottleRule rule;
    Parameters limits;
    limits.cpu_throttle_initial = 30;
    limits.cpu_throttle_increment = 25;
    limits.max_cpu_throttle = 70;
    EXPECT_EQ(step(rule, limits), 30);
    EXPECT_EQ(step(rule, limits), 55);
    EXPECT_EQ(step(rule, limits), 70);
    EXPECT_EQ(step(rule, limits), 70);
}

TEST(ThrottleRule, CeilingThatIsLoweredMeanwhileHolds) {
    ThrottleRule rule;
    Parameters limits;
    limits.cpu_throttle_initial = 60;
    EXPECT_EQ(step(rule, limits), 60);
    limits.cpu_throttle_initial = 20;
    limits.max_cpu_throttle = 40;
    EXPECT_EQ(step(rule, limits), 40);
}

TEST(ThrottleRule, TailslowAddsOnlyWhatIsMissing) {
    ThrottleRule rule;
    Parameters limits;
    limits.cpu_throttle_tailslow = 1;
    EXPECT_EQ(step(rule, limits), 20);
    // 80 % awake and 4 % too much: 3 % of sleep are missing.
    EXPECT_EQ(step(rule, limits, 521), 23);
    // As much as the increment at most, and never nothing.
    EXPECT_EQ(step(rule, limits, 100'000), 33);
    EXPECT_EQ(step(rule, limits, kTooMuch), 34);
}

TEST(ThrottleRule, NothingSentMeansThatAnyDirtyPageIsTooMuch) {
    ThrottleRule rule;
    rule.after_period(1, 0, {});
    EXPECT_EQ(rule.after_period(1, 0, {}), 20);
    EXPECT_EQ(rule.after_period(0, 0, {}), 20);
}

TEST(Parameters, CeilingBelowTheFirstThrottleOrAboveAllIsRefused) {
    Parameters wanted;
    wanted.max_cpu_throttle = 19;
    EXPECT_FALSE(check_parameters(wanted));
    wanted.max_cpu_throttle = 100;
    EXPECT_FALSE(check_parameters(wanted));
    wanted.max_cpu_throttle = 20;
    EXPECT_TRUE(check_parameters(wanted));
}

TEST(AutoConverge, MigrationOfCpusThatCanNotBeSlowedDownIsRefusedAndTheVmRuns) {
    util::SystemClock clock;
    test::TestVm vm(clock, system::RunState::PreLaunch, test::Guest::Dirtying);
    ASSERT_TRUE(vm.start());
    ASSERT_TRUE(vm.set_capability(Capability::AutoConverge));
    auto [here, there] = make_memory_channel_pair();
    const auto refused = vm.migrate(std::move(here));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("slowed down"), std::string::npos)
        << refused.error().message();
    EXPECT_EQ(vm.state(), system::RunState::Running);
    EXPECT_EQ(vm.status(), MigrationStatus::None);
}

}  // namespace
}  // namespace ferry::migration
