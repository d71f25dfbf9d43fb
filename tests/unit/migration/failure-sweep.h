// SPDX-License-Identifier: BSD-2-Clause
// Fails, one after the other, every call that a device gets in a migration, and judges how each of
// these attempts ends. Which calls there are is found by counting; a table says for each what its
// failure may do, so that a call nobody thought of is a failing test.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/leftovers.h"
#include "tests/unit/migration/device-session.h"

namespace ferry::test {

struct CallRule {
    enum class Failure : uint8_t {
        EndsAttempt,  // the VM stays at the source, as it was; another attempt succeeds
        StopsBoth,    // after the hand-over: stopped on both sides, and both say what to do
        IsHarmless,   // the VM moves all the same
    };
    std::string call;  // a glob over the names of calls
    Failure failure;
    // A glob: what the error says was being done, behind the name of the device. If harmless: what
    // the log says, empty when it may be silent.
    std::string step;
    uint64_t nth = 0;  // of the calls with that name; 0: each
};

class FailureSweep {
 public:
    struct Setup {
        // One that is PreLaunch becomes the source. The calls of its first device, "dev3", or of
        // the destination's, fail.
        std::function<std::unique_ptr<Side>(system::RunState initial)> make_side;
        migration::Role disturbed;
        system::RunState was;  // the source's VM before the migration: Running or Paused
        std::vector<CallRule> rules;
    };
    explicit FailureSweep(Setup setup) : setup_(std::move(setup)) {}
    void run();

 private:
    void make_pair();
    void destroy_pair();
    void migrate();
    Side& disturbed() { return setup_.disturbed == migration::Role::Source ? *src_ : *dst_; }
    // The names of the calls in an attempt in which none fails.
    std::vector<std::string> undisturbed();
    // Whether the call, the nth of its name, was made at all.
    bool attempt(const std::string& call, uint64_t nth);
    const CallRule* rule_for(const std::string& call, uint64_t nth);

    void expect_ended(const CallRule& rule);
    void expect_stopped_on_both(const CallRule& rule);
    void expect_moved_anyway(const CallRule& rule);
    // That both sides' errors name side, device, step and cause. `at_source`: a glob that precedes
    // in the source's words what the destination says.
    void expect_errors(const CallRule& rule, const std::string& at_source);
    void expect_error(TestVm& vm, const std::string& glob);

    const Setup setup_;
    util::SystemClock clock_;
    std::unique_ptr<Side> src_;
    std::unique_ptr<Side> dst_;
    std::vector<uint64_t> uses_;  // of each rule
    std::string which_;           // attempt, for messages
};

}  // namespace ferry::test
