// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/objects.h"

#include <algorithm>

#include "monitor/schema.h"
#include "system/vmm/inherited-fds.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using monitor::Json;
using monitor::JsonType;

constexpr std::string_view kFileType = "memory-backend-file";
constexpr std::string_view kRamType = "memory-backend-ram";
constexpr std::string_view kMemfdType = "memory-backend-memfd";
constexpr std::string_view kWorkloadType = "ferry-workload";
constexpr std::string_view kIommufdType = "iommufd";

std::vector<monitor::Member> backend_members(std::string_view type) {
    constexpr auto kOptional = monitor::Presence::Optional;
    std::vector<monitor::Member> members{{"size", {JsonType::Uint64}},
                                         {"share", {JsonType::Bool}, kOptional}};
    if (type == kFileType) members.push_back({"mem-path", {JsonType::String}});
    return members;
}

std::string_view type_name(const BackendOptions& backend) {
    return backend.kind == BackendOptions::Kind::File ? kFileType : kRamType;
}

Result<std::unique_ptr<system::RamBlock>> create_memory(const BackendOptions& backend) {
    if (backend.kind == BackendOptions::Kind::File) {
        return system::RamBlock::create_file(backend.id, backend.path, backend.size);
    }
    return system::RamBlock::create_memfd(backend.id, backend.size);
}

}  // namespace

bool is_identifier(std::string_view id) {
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    return !id.empty() && letter(id.front()) && std::ranges::all_of(id, [&](char c) {
        return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    });
}

std::vector<std::string> Objects::types() {
    return {std::string(kFileType), std::string(kMemfdType), std::string(kRamType),
            std::string(kWorkloadType), std::string(kIommufdType)};
}

bool Objects::exists(const std::string& id) const {
    return created_.contains(id) || iommufds_.contains(id) ||
           std::ranges::find(options_.backends, id, &BackendOptions::id) !=
               options_.backends.end() ||
           std::ranges::find(options_.workloads, id, &WorkloadOptions::id) !=
               options_.workloads.end();
}

Result<> Objects::check_id(const std::string& id) const {
    if (!is_identifier(id)) {
        return make_error(ErrorKind::InvalidArgument, "Parameter 'id' expects an identifier");
    }
    if (exists(id)) {
        return make_error(ErrorKind::InvalidArgument,
                          "attempt to add duplicate property '{}' to object (type 'container')",
                          id);
    }
    return {};
}

// `fd` is a name that getfd gave, or a number that the parent process left.
Result<> Objects::add_iommufd(const std::string& id, const Json& properties,
                              migration::FdTable& fds) {
    MIG_CHECK(monitor::check_members({{"fd", {JsonType::String}, monitor::Presence::Optional}},
                                     properties, ""));
    MIG_CHECK(check_id(id));
    UniqueFd fd;
    if (properties.contains("fd")) {
        MIG_TRY(fd, take_named_or_inherited_fd(properties["fd"].get<std::string>(), fds));
    }
    iommufds_.add(id, std::move(fd));
    return {};
}

Result<> Objects::add(const std::string& type, const std::string& id, const Json& properties,
                      migration::FdTable& fds) {
    if (type == kIommufdType) return add_iommufd(id, properties, fds);
    if (type == kWorkloadType) {
        return make_error(ErrorKind::Unsupported,
                          "{} can't be added while the VM lives: use -object at its start", type);
    }
    MIG_CHECK(monitor::check_members(backend_members(type), properties, ""));
    MIG_CHECK(check_id(id));
    BackendOptions backend;
    backend.id = id;
    backend.size = monitor::to_uint64(properties["size"]);
    if (backend.size == 0 || backend.size % system::kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "property 'size' of {} doesn't take value '{}': a positive multiple of "
                          "{} is needed",
                          type, backend.size, system::kPageSize);
    }
    if (type == kFileType) {
        backend.kind = BackendOptions::Kind::File;
        backend.path = properties["mem-path"].get<std::string>();
        if (!monitor::bool_or(properties, "share", false)) {
            return make_error(ErrorKind::Unsupported,
                              "Parameter 'share' must be true: a private copy of the file is not "
                              "supported");
        }
    }
    MIG_TRY(auto memory, create_memory(backend));
    created_.emplace(id, Created{std::move(backend), std::move(memory)});
    return {};
}

Result<> Objects::remove(const std::string& id) {
    if (created_.erase(id) != 0) return {};
    if (iommufds_.contains(id)) return iommufds_.remove(id);
    if (exists(id)) {
        return make_error(ErrorKind::InvalidState, "object '{}' is in use, can not be deleted", id);
    }
    return make_error(ErrorKind::InvalidArgument, "object '{}' not found", id);
}

std::vector<BackendInfo> Objects::backends() const {
    std::vector<BackendInfo> all;
    for (const BackendOptions& backend : options_.backends) {
        all.push_back({backend, std::string(type_name(backend)), BackendInfo::Use::Ram});
    }
    for (const auto& [id, created] : created_) {
        all.push_back({created.options, std::string(type_name(created.options)), {}});
    }
    return all;
}

}  // namespace ferry::vmm
