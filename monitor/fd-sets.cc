// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/fd-sets.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <charconv>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

Error not_found(int64_t set, std::optional<int64_t> fd) {
    const std::string name =
        fd ? fmt::format("fdset-id:{}, fd:{}", set, *fd) : fmt::format("fdset-id:{}", set);
    return make_error(ErrorKind::InvalidArgument, "File descriptor named '{}' not found", name);
}

}  // namespace

Result<FdSets::Added> FdSets::add(UniqueFd fd, std::optional<int64_t> set,
                                  std::optional<std::string> opaque) {
    if (set && *set < 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "Parameter 'fdset-id' expects a non-negative value");
    }
    int64_t id = set.value_or(0);
    while (!set && sets_.contains(id)) ++id;
    const int number = fd.raw();
    sets_[id].emplace(number, Member{std::move(fd), std::move(opaque)});
    return Added{id, number};
}

Result<> FdSets::remove(int64_t set, std::optional<int64_t> fd) {
    const auto found = sets_.find(set);
    if (found == sets_.end()) return not_found(set, fd);
    if (fd) {
        const auto member = found->second.find(static_cast<int>(*fd));
        if (member == found->second.end() || member->first != *fd) return not_found(set, fd);
        found->second.erase(member);
    }
    if (!fd || found->second.empty()) sets_.erase(found);
    return {};
}

Result<UniqueFd> FdSets::open(std::string_view path, int flags) const {
    constexpr std::string_view kPrefix = "/dev/fdset/";
    const std::string_view number = path.substr(std::min(path.size(), kPrefix.size()));
    int64_t id = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), id);
    if (error != std::errc() || end != number.data() + number.size() || id < 0) {
        return make_errno(EINVAL, "Could not open '{}'", path);
    }
    const auto found = sets_.find(id);
    if (found == sets_.end()) return make_errno(ENOENT, "Could not open '{}'", path);
    constexpr int kMustFit = O_ACCMODE | O_DIRECT;
    for (const auto& [raw, member] : found->second) {
        MIG_TRY(const int has, util::check_call(::fcntl(raw, F_GETFL), "fcntl(F_GETFL)"));
        if ((has & kMustFit) == (flags & kMustFit)) return util::duplicate(member.fd.borrow());
    }
    return make_errno(EACCES, "{}: Failed to find file descriptor with matching flags", path);
}

util::Registration FdSets::client() {
    ++clients_;
    return util::Registration([this] {
        if (--clients_ == 0) sets_.clear();
    });
}

}  // namespace ferry::monitor
