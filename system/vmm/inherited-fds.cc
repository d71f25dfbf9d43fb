// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/inherited-fds.h"

#include <fcntl.h>

#include <algorithm>

#include "system/vmm/sub-options.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

Result<UniqueFd> take_inherited_fd(std::string_view number) {
    MIG_TRY(const uint64_t value, parse_number(number));
    const auto fd = static_cast<int>(std::min<uint64_t>(value, INT32_MAX));
    MIG_CHECK(util::check_call(::fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl"));
    return UniqueFd(fd);
}

Result<UniqueFd> take_named_or_inherited_fd(const std::string& name, migration::FdTable& named) {
    const bool number = !name.empty() && name.front() >= '0' && name.front() <= '9';
    auto fd = number ? take_inherited_fd(name) : named.take_fd(name);
    if (!fd) return std::move(fd).error().context(fmt::format("fd '{}'", name));
    return fd;
}

Result<UniqueFd> InheritedFds::take_fd(std::string_view name) {
    MIG_TRY(UniqueFd fd, take_inherited_fd(name), "fd:{}", name);
    return fd;
}

Result<UniqueFd> InheritedFds::open_fd_set(std::string_view path, int) {
    return make_error(ErrorKind::InvalidArgument,
                      "Could not open '{}': sets of descriptors are made by add-fd; use "
                      "-incoming defer and migrate-incoming",
                      path);
}

}  // namespace ferry::vmm
