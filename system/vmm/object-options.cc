// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/object-options.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr std::string_view kBackendHelp =
    "  id=<string>            required\n"
    "  size=<size>            required; multiple of 4k\n"
    "  share=<bool>           on for memory-backend-file; else without meaning\n";
constexpr std::string_view kFileHelp =
    "  mem-path=<string>      required; the file is created, or grown to size\n";
constexpr std::string_view kWorkloadHelp =
    "  id=<string>            required; the same on both sides of a migration\n"
    "  working-set=<size>     required; bytes of guest memory that are written; multiple of 4k\n"
    "  offset=<size>          guest physical address where they begin; default 0\n"
    "  pages-per-second=<n>   default 1000\n"
    "  pattern=seq|rand       order of the pages; default seq\n"
    "  fill=page|record       whole pages, or 64 bytes of each; default page\n"
    "  seed=<n>               default 1\n"
    "  All but id travel with a migration and replace what the destination was given.\n";

constexpr std::string_view kIommufdHelp =
    "  id=<string>            required; named by vfio-pci,iommufd=\n"
    "  fd=<n>                 an open /dev/iommu; default: opened with the first device\n";

Result<> check_id(const Options& options, const std::string& id, const SubOptions& properties) {
    const bool backend =
        std::ranges::find(options.backends, id, &BackendOptions::id) != options.backends.end();
    const bool workload =
        std::ranges::find(options.workloads, id, &WorkloadOptions::id) != options.workloads.end();
    const bool iommufd =
        std::ranges::find(options.iommufds, id, &IommufdOptions::id) != options.iommufds.end();
    if (id.empty() || backend || workload || iommufd) {
        return make_error(ErrorKind::InvalidArgument, "{}: {} id '{}'", properties.context(),
                          id.empty() ? "empty" : "duplicate", id);
    }
    return {};
}

Result<> add_backend(Options& options, std::string_view type, SubOptions& properties) {
    BackendOptions backend;
    MIG_TRY(backend.id, properties.take_required("id"));
    MIG_CHECK(check_id(options, backend.id, properties));
    MIG_TRY(const auto size, properties.take_size("size"));
    if (!size || *size == 0 || *size % system::kPageSize != 0) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: size must be given, and be a positive multiple of {} bytes",
                          properties.context(), system::kPageSize);
    }
    backend.size = *size;
    MIG_TRY(const auto share, properties.take_switch("share"));
    if (type == "memory-backend-file") {
        backend.kind = BackendOptions::Kind::File;
        MIG_TRY(backend.path, properties.take_required("mem-path"));
        if (share != Switch::On) {
            return make_error(ErrorKind::Unsupported,
                              "{}: a private copy of the file is not there; add share=on",
                              properties.context());
        }
    }
    MIG_CHECK(properties.finish());
    options.backends.push_back(std::move(backend));
    return {};
}

Result<> add_workload(Options& options, SubOptions& properties) {
    WorkloadOptions workload;
    MIG_TRY(workload.id, properties.take_required("id"));
    MIG_CHECK(check_id(options, workload.id, properties));
    MIG_TRY(const auto working_set, properties.take_size("working-set"));
    MIG_TRY(const auto offset, properties.take_size("offset"));
    MIG_TRY(const auto rate, properties.take_number("pages-per-second"));
    MIG_TRY(const auto seed, properties.take_number("seed"));
    const std::string pattern = properties.take("pattern").value_or("seq");
    const std::string fill = properties.take("fill").value_or("page");
    MIG_CHECK(properties.finish());
    if (!working_set) {
        return make_error(ErrorKind::InvalidArgument, "{}: Parameter 'working-set' is missing",
                          properties.context());
    }
    if ((pattern != "seq" && pattern != "rand") || (fill != "page" && fill != "record")) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: pattern is seq or rand, and fill is page or record",
                          properties.context());
    }
    qtest::WorkloadState& state = workload.state;
    state.working_set = *working_set;
    state.offset = offset.value_or(state.offset);
    state.pages_per_second = rate.value_or(state.pages_per_second);
    state.seed = seed.value_or(state.seed);
    state.order = pattern == "seq" ? qtest::Order::Sequential : qtest::Order::Random;
    state.fill = fill == "page" ? qtest::Fill::Page : qtest::Fill::Record;
    options.workloads.push_back(std::move(workload));
    return {};
}

Result<> add_iommufd(Options& options, SubOptions& properties) {
    IommufdOptions iommufd;
    MIG_TRY(iommufd.id, properties.take_required("id"));
    MIG_CHECK(check_id(options, iommufd.id, properties));
    iommufd.fd = properties.take("fd").value_or("");
    MIG_CHECK(properties.finish());
    options.iommufds.push_back(std::move(iommufd));
    return {};
}

bool is_backend(std::string_view type) {
    return type == "memory-backend-ram" || type == "memory-backend-memfd" ||
           type == "memory-backend-file";
}

Error unknown_type(std::string_view type) {
    return make_error(ErrorKind::Unsupported, "-object {}: invalid object type (see -object help)",
                      type);
}

}  // namespace

Result<> add_object(Options& options, std::string_view type, SubOptions& properties) {
    if (is_backend(type)) return add_backend(options, type, properties);
    if (type == "ferry-workload") return add_workload(options, properties);
    if (type == "iommufd") return add_iommufd(options, properties);
    return unknown_type(type);
}

Result<std::string> object_help(std::string_view type) {
    if (type == "help") {
        return std::string(
            "List of user creatable objects:\n  ferry-workload\n  iommufd\n  memory-backend-file\n"
            "  memory-backend-memfd\n  memory-backend-ram\n");
    }
    const std::string title = std::string(type) + " options:\n";
    if (type == "ferry-workload") return title + std::string(kWorkloadHelp);
    if (type == "iommufd") return title + std::string(kIommufdHelp);
    if (type == "memory-backend-file") {
        return title + std::string(kBackendHelp) + std::string(kFileHelp);
    }
    if (is_backend(type)) return title + std::string(kBackendHelp);
    return unknown_type(type);
}

}  // namespace ferry::vmm
