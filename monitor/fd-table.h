// SPDX-License-Identifier: BSD-2-Clause
// The file descriptors that one monitor's client handed over: first without a name, along with the
// bytes of a request, then named by getfd. Main loop thread only.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "migration/channel.h"
#include "monitor/fd-sets.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::monitor {

class MonitorFds final : public migration::FdTable {
 public:
    // `sets` are everybody's and outlive this.
    explicit MonitorFds(FdSets& sets) : sets_(sets) {}

    // What came with the request that runs next; what came before and was not taken is closed.
    void passed(std::vector<UniqueFd> fds);

    // Names the first passed descriptor and closes the others; replaces what had the name.
    Result<> getfd(const std::string& name);
    Result<> closefd(const std::string& name);
    Result<UniqueFd> take_fd(std::string_view name) override;
    // The first passed descriptor, for a set.
    Result<UniqueFd> take_passed();
    FdSets& sets() { return sets_; }
    Result<UniqueFd> open_fd_set(std::string_view path, int flags) override {
        return sets_.open(path, flags);
    }

 private:
    FdSets& sets_;
    std::vector<UniqueFd> passed_;
    std::map<std::string, UniqueFd, std::less<>> named_;
};

}  // namespace ferry::monitor
