// SPDX-License-Identifier: BSD-2-Clause
#include "migration/blocker.h"

#include <cerrno>
#include <utility>

#include "util/try.h"

namespace ferry::migration {

namespace {
Error refusal(int errnum, std::string_view why, const std::string& reason) {
    return Error(ErrorKind::InvalidState,
                 fmt::format("can't block migration while {}; the reason was: {}", why, reason),
                 errnum);
}
}  // namespace

Result<util::Registration> BlockerList::add(std::string reason) {
    if (only_migratable_) {
        return refusal(EACCES, "-only-migratable demands a VM that can migrate", reason);
    }
    if (busy_) return refusal(EBUSY, "a migration or snapshot is in progress", reason);
    const auto at = reasons_.insert(reasons_.end(), std::move(reason));
    return util::Registration([this, at] { reasons_.erase(at); });
}

Result<> BlockerList::check() const {
    if (reasons_.empty()) return {};
    return Error(ErrorKind::InvalidState, reasons_.front());
}

}  // namespace ferry::migration
