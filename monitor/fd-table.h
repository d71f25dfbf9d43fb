// SPDX-License-Identifier: BSD-2-Clause
// The file descriptors that one monitor's client handed over: first without a name, along with the
// bytes of a request, then named by getfd. Main loop thread only.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "migration/channel.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::monitor {

class MonitorFds final : public migration::FdTable {
 public:
    // What came with the request that runs next; what came before and was not taken is closed.
    void passed(std::vector<UniqueFd> fds);

    // Names the first passed descriptor and closes the others; replaces what had the name.
    Result<> getfd(const std::string& name);
    Result<> closefd(const std::string& name);
    Result<UniqueFd> take_fd(std::string_view name) override;

 private:
    std::vector<UniqueFd> passed_;
    std::map<std::string, UniqueFd, std::less<>> named_;
};

}  // namespace ferry::monitor
