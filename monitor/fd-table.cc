// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/fd-table.h"

#include "util/try.h"

namespace ferry::monitor {

void MonitorFds::passed(std::vector<UniqueFd> fds) {
    passed_ = std::move(fds);
}

Result<UniqueFd> MonitorFds::take_passed() {
    if (passed_.empty()) {
        return make_error(ErrorKind::InvalidArgument, "No file descriptor supplied via SCM_RIGHTS");
    }
    UniqueFd fd = std::move(passed_.front());
    passed_.clear();
    return fd;
}

Result<> MonitorFds::getfd(const std::string& name) {
    MIG_TRY(UniqueFd fd, take_passed());
    // A name that is a number means an inherited descriptor elsewhere.
    if (!name.empty() && name.front() >= '0' && name.front() <= '9') {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter 'fdname' expects a name not starting with a digit");
    }
    named_.insert_or_assign(name, std::move(fd));
    return {};
}

Result<> MonitorFds::closefd(const std::string& name) {
    if (named_.erase(name) == 0) {
        return make_error(ErrorKind::InvalidArgument, "File descriptor named '{}' not found", name);
    }
    return {};
}

Result<UniqueFd> MonitorFds::take_fd(std::string_view name) {
    const auto found = named_.find(name);
    if (found == named_.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "File descriptor named '{}' has not been found", name);
    }
    UniqueFd fd = std::move(found->second);
    named_.erase(found);
    return fd;
}

}  // namespace ferry::monitor
