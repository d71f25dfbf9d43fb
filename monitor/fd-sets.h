// SPDX-License-Identifier: BSD-2-Clause
// Sets of file descriptors that clients of QMP handed over, shared by all monitors: one file,
// opened in several ways, under one path "/dev/fdset/N". Main loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::monitor {

class FdSets {
 public:
    struct Member {
        UniqueFd fd;
        std::optional<std::string> opaque;  // the client's own note
    };
    using Set = std::map<int, Member>;  // by the descriptor's number, which clients know

    struct Added {
        int64_t set;
        int fd;
    };
    // Without `set` the lowest one that is free.
    Result<Added> add(UniqueFd fd, std::optional<int64_t> set, std::optional<std::string> opaque);
    // One member, or all. A set without members is gone; duplicates live on by themselves.
    Result<> remove(int64_t set, std::optional<int64_t> fd);
    // A duplicate of the member whose access mode and O_DIRECT are those of `flags`.
    Result<UniqueFd> open(std::string_view path, int flags) const;
    const std::map<int64_t, Set>& all() const { return sets_; }

    // A client that is connected. When the last one goes, so do all sets: nobody could use them.
    util::Registration client();

 private:
    std::map<int64_t, Set> sets_;
    size_t clients_ = 0;
};

}  // namespace ferry::monitor
