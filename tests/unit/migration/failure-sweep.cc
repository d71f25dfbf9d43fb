// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/migration/failure-sweep.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ferry::test {

using migration::MigrationStatus;
using migration::Role;
using system::RunState;
using vfio::MigState;

namespace {

constexpr int kErrnum = EIO;
constexpr std::string_view kDevice = "dev3";

bool matches(const std::string& glob, const std::string& text) {
    return ::fnmatch(glob.c_str(), text.c_str(), 0) == 0;
}

bool logged(const TestVm& vm, const std::string& glob) {
    const auto lines = vm.log.lines();
    return std::ranges::any_of(lines, [&](const auto& l) { return matches(glob, l.second); });
}

size_t open_descriptors(const Side& side) {
    size_t sum = 0;
    for (const auto& device : side.devices) sum += device->open_descriptors();
    return sum;
}

}  // namespace

void FailureSweep::make_pair() {
    src_ = setup_.make_side(RunState::PreLaunch);
    dst_ = setup_.make_side(RunState::InMigrate);
    src_->vm.fill_ram(7);
    ASSERT_TRUE(src_->vm.start());
    if (setup_.was == RunState::Paused) {
        ASSERT_TRUE(src_->vm.pause());
    }
}

void FailureSweep::destroy_pair() {
    for (Side* side : {src_.get(), dst_.get()}) {
        for (const auto& device : side->devices) {
            EXPECT_EQ(device->complaints(), std::vector<std::string>{}) << which_;
        }
    }
    src_.reset();
    dst_.reset();
}

void FailureSweep::migrate() {
    begin_migration(*src_, *dst_);
    finish_migration(*src_, *dst_);
}

void FailureSweep::run() {
    uses_.assign(setup_.rules.size(), 0);
    const std::vector<std::string> calls = undisturbed();  // and so all that is made only once
    const Leftovers idle;
    for (const std::string& call : calls) {
        for (uint64_t nth = 1;; ++nth) {
            const bool made = attempt(call, nth);
            EXPECT_EQ(idle.since(), "") << which_;
            if (!made) break;
        }
    }
    for (size_t i = 0; i < uses_.size(); ++i) {
        EXPECT_GT(uses_[i], 0U) << "no call fits the rule '" << setup_.rules[i].call << "'";
    }
}

std::vector<std::string> FailureSweep::undisturbed() {
    make_pair();
    vfio::FaultControl& faults = disturbed().devices.front()->faults();
    faults.clear_log();
    migrate();
    std::vector<std::string> names;
    for (const auto& call : faults.log()) {
        if (std::ranges::find(names, call.name) == names.end()) names.push_back(call.name);
    }
    expect_moved(*src_, *dst_, setup_.was, "undisturbed");
    destroy_pair();
    return names;
}

bool FailureSweep::attempt(const std::string& call, uint64_t nth) {
    which_ = fmt::format("{}, VM {}: '{}' number {}",
                         setup_.disturbed == Role::Source ? "source" : "destination",
                         system::to_string(setup_.was), call, nth);
    make_pair();
    vfio::FaultControl& faults = disturbed().devices.front()->faults();
    faults.clear_log();
    faults.fail({.pattern = call, .nth = nth, .errnum = kErrnum});
    const Leftovers before;
    const size_t descriptors = open_descriptors(*src_) + open_descriptors(*dst_);
    migrate();
    const auto made = faults.log();
    EXPECT_EQ(open_descriptors(*src_) + open_descriptors(*dst_), descriptors) << which_;
    if (std::cmp_less(std::ranges::count(made, call, &vfio::FaultControl::Call::name), nth)) {
        expect_moved(*src_, *dst_, setup_.was, which_ + " (not made)");
        destroy_pair();
        return false;
    }
    const CallRule* rule = rule_for(call, nth);
    if (rule == nullptr) {
        ADD_FAILURE() << which_ << ": no rule says what its failure may do";
    } else {
        switch (rule->failure) {
            case CallRule::Failure::EndsAttempt:
                EXPECT_EQ(before.since(), "") << which_;
                expect_ended(*rule);
                break;
            case CallRule::Failure::StopsBoth: expect_stopped_on_both(*rule); break;
            case CallRule::Failure::IsHarmless: expect_moved_anyway(*rule); break;
        }
    }
    destroy_pair();
    return true;
}

const CallRule* FailureSweep::rule_for(const std::string& call, uint64_t nth) {
    for (size_t i = 0; i < setup_.rules.size(); ++i) {
        const CallRule& rule = setup_.rules[i];
        if (!matches(rule.call, call) || (rule.nth != 0 && rule.nth != nth)) continue;
        ++uses_[i];
        return &rule;
    }
    return nullptr;
}

void FailureSweep::expect_ended(const CallRule& rule) {
    expect_errors(rule, "*the destination failed: *");
    expect_as_before(*src_, *dst_, setup_.was, which_);
    migrate();
    expect_moved(*src_, *dst_, setup_.was, which_ + ", tried again");
}

void FailureSweep::expect_stopped_on_both(const CallRule& rule) {
    expect_errors(rule, "*handed over, but the destination could not start it: ");
    for (const Side* side : {src_.get(), dst_.get()}) {  // each says it once, in its own words
        const std::string words = side->vm.error_desc();
        EXPECT_EQ(words.find("'cont'"), words.rfind("'cont'")) << which_ << ": " << words;
        EXPECT_NE(words.find("'cont'"), words.npos) << which_ << ": " << words;
    }
    EXPECT_EQ(to_string(src_->vm.state()), to_string(RunState::PostMigrate)) << which_;
    EXPECT_EQ(to_string(dst_->vm.state()), to_string(RunState::Paused)) << which_;
    for (Side* side : {src_.get(), dst_.get()}) {
        for (const auto& device : side->devices) {
            EXPECT_EQ(device->real_state(), MigState::Stop) << which_;
        }
    }
    // As both were told.
    const auto resumed = src_->vm.cont();
    ASSERT_TRUE(resumed) << which_ << ": " << resumed.error().message();
    for (const auto& device : src_->devices) {
        EXPECT_EQ(device->real_state(), MigState::Running) << which_;
    }
}

void FailureSweep::expect_moved_anyway(const CallRule& rule) {
    expect_moved(*src_, *dst_, setup_.was, which_);
    if (rule.step.empty()) return;
    EXPECT_TRUE(logged(disturbed().vm, fmt::format("*{}*{}*", kDevice, rule.step))) << which_;
}

void FailureSweep::expect_errors(const CallRule& rule, const std::string& at_source) {
    EXPECT_EQ(src_->vm.status(), MigrationStatus::Failed) << which_;
    EXPECT_EQ(dst_->vm.status(), MigrationStatus::Failed) << which_;
    const std::string own =
        fmt::format("*device {}: {}*{}*", kDevice, rule.step, std::strerror(kErrnum));
    if (setup_.disturbed == Role::Destination) {
        expect_error(dst_->vm, "destination: " + own);
        expect_error(src_->vm, at_source + own);
        EXPECT_FALSE(matches("*the destination*", dst_->vm.error_desc())) << which_;
    } else {
        expect_error(src_->vm, "source: " + own);
        // It can't know more than that it was left alone.
        expect_error(dst_->vm, "*the other end is gone*");
        EXPECT_FALSE(matches("*the destination*", src_->vm.error_desc())) << which_;
    }
}

void FailureSweep::expect_error(TestVm& vm, const std::string& glob) {
    EXPECT_TRUE(matches(glob, vm.error_desc()))
        << which_ << ": '" << vm.error_desc() << "' is not like " << glob;
    const auto lines = vm.log.lines();
    EXPECT_TRUE(std::ranges::any_of(
        lines,
        [&](const auto& line) { return line.second.find(vm.error_desc()) != std::string::npos; }))
        << which_ << ": not in the log";
}

}  // namespace ferry::test
