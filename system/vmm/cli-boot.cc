// SPDX-License-Identifier: BSD-2-Clause
// Options about what the guest begins with: the boot disk, or a kernel.
#include <algorithm>

#include "system/vmm/cli-draft.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr std::string_view kDisk = "ide-hd";

// What the disk's commands can say of its shape.
struct GeometryLimit {
    std::string_view key;
    uint64_t most;
};
constexpr GeometryLimit kGeometry[] = {{"cyls", 65535}, {"heads", 16}, {"secs", 255}};

// Options that change nothing where a disk is only read, once.
Result<> take_harmless(SubOptions& options) {
    for (const std::string_view key : {"cache", "aio", "readonly", "read-only", "snapshot",
                                       "discard", "detect-zeroes", "file.locking", "index"}) {
        options.take(key);
    }
    if (const auto media = options.take("media"); media && *media != "disk") {
        return make_error(ErrorKind::Unsupported, "{}: media={} is not there; only disk",
                          options.context(), *media);
    }
    return {};
}

Result<> drive(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-drive " + value, value));
    DriveOptions result;
    result.id = options.take("id").value_or("");
    MIG_TRY(result.file, options.take_required("file"));
    const std::string interface = options.take("if").value_or("ide");
    if (interface != "ide" && interface != "none") {
        return make_error(ErrorKind::Unsupported, "{}: if={} is not there; only ide and none",
                          options.context(), interface);
    }
    if (interface == "ide") result.attached = DriveOptions::Attached::Yes;
    if (const auto format = options.take("format"); format.value_or("raw") != "raw") {
        return make_error(ErrorKind::Unsupported, "{}: format={} is not there; only raw",
                          options.context(), *format);
    }
    MIG_CHECK(take_harmless(options));
    MIG_CHECK(options.finish());
    const auto same = std::ranges::find(draft.drives, result.id, &DriveOptions::id);
    if (!result.id.empty() && same != draft.drives.end()) {
        return make_error(ErrorKind::InvalidArgument, "{}: duplicate id '{}'", options.context(),
                          result.id);
    }
    draft.drives.push_back(std::move(result));
    return {};
}

Result<> kernel(Draft& draft, const std::string& value) {
    draft.options.boot.kernel = value;
    return {};
}

Result<> append(Draft& draft, const std::string& value) {
    draft.options.boot.command_line = value;
    return {};
}

// Nobody asks for the shape, as there is no controller to ask; but a wrong one is still refused.
// All zeros stand for none, as if it were not given.
Result<> take_geometry(SubOptions& properties) {
    uint64_t given[std::size(kGeometry)] = {};
    bool any = false;
    for (size_t i = 0; i < std::size(kGeometry); ++i) {
        MIG_TRY(const auto number, properties.take_number(kGeometry[i].key));
        given[i] = number.value_or(0);
        any = any || given[i] != 0;
    }
    for (size_t i = 0; any && i < std::size(kGeometry); ++i) {
        if (given[i] >= 1 && given[i] <= kGeometry[i].most) continue;
        return make_error(ErrorKind::InvalidArgument, "{}: {} must be between 1 and {}",
                          properties.context(), kGeometry[i].key, kGeometry[i].most);
    }
    return {};
}

// The file behind a disk.
Result<std::string> file_of(const Draft& draft, const DiskOptions& disk) {
    const auto drive = std::ranges::find(draft.drives, disk.drive, &DriveOptions::id);
    if (disk.drive.empty() || drive == draft.drives.end()) {
        return make_error(ErrorKind::InvalidArgument, "-device {}: no -drive has the id '{}'",
                          kDisk, disk.drive);
    }
    return drive->file;
}

}  // namespace

bool is_disk(std::string_view driver) {
    return driver == kDisk;
}

Result<> add_disk(Draft& draft, SubOptions properties) {
    DiskOptions disk;
    MIG_TRY(disk.drive, properties.take_required("drive"));
    MIG_TRY(const auto boot_index, properties.take_number("bootindex"));
    disk.boot_index = boot_index.value_or(disk.boot_index);
    MIG_CHECK(take_geometry(properties));
    for (const std::string_view key : {"id", "bus", "unit"}) properties.take(key);
    MIG_CHECK(properties.finish());
    draft.disks.push_back(std::move(disk));
    return {};
}

void add_boot_options(Handlers& handlers) {
    handlers.insert({{"drive", drive}, {"kernel", kernel}, {"append", append}});
}

Result<> finish_boot(Draft& draft) {
    // Those of -device first: the order of the rest is that of the command line.
    std::ranges::stable_sort(draft.disks, {}, &DiskOptions::boot_index);
    std::vector<std::string> files;
    for (const DiskOptions& disk : draft.disks) {
        MIG_TRY(auto file, file_of(draft, disk));
        files.push_back(std::move(file));
    }
    for (const DriveOptions& one : draft.drives) {
        if (one.attached == DriveOptions::Attached::Yes) files.push_back(one.file);
    }
    BootOptions& boot = draft.options.boot;
    // A second disk would be one that the guest looks for in vain.
    if (files.size() > 1) {
        return make_error(ErrorKind::Unsupported,
                          "{} disks: there is no disk controller; a disk only gives its first "
                          "sector to the guest, so there can be one",
                          files.size());
    }
    if (!files.empty() && boot.kernel.empty()) boot.disk = std::move(files.front());
    if (!boot.command_line.empty() && boot.kernel.empty()) {
        return make_error(ErrorKind::InvalidArgument, "-append: only with -kernel");
    }
    return {};
}

}  // namespace ferry::vmm
