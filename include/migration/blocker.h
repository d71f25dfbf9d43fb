// SPDX-License-Identifier: BSD-2-Clause
// Reasons why this VM cannot migrate, each with an owner who takes it back.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "util/registration.h"
#include "util/result.h"

namespace ferry::migration {

// Main loop thread only.
class BlockerList {
 public:
    // Set by Migration while an attempt runs: adding then fails with InvalidState, EBUSY.
    void set_busy(bool busy) { busy_ = busy; }
    // The `-only-migratable` option: adding fails with EACCES.
    void set_only_migratable() { only_migratable_ = true; }
    bool only_migratable() const { return only_migratable_; }

    Result<util::Registration> add(std::string reason);
    // For a fault that shows up by itself and has nobody to refuse: never fails. It concerns the
    // next attempt, not the one that may be running.
    util::Registration add_fault(std::string reason) {
        const auto at = reasons_.insert(reasons_.end(), std::move(reason));
        return util::Registration([this, at] { reasons_.erase(at); });
    }
    std::vector<std::string> reasons() const { return {reasons_.begin(), reasons_.end()}; }
    // The first reason as an Error, or success.
    Result<> check() const;

 private:
    std::list<std::string> reasons_;
    bool busy_ = false;
    bool only_migratable_ = false;
};

}  // namespace ferry::migration
