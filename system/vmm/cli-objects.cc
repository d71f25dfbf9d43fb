// SPDX-License-Identifier: BSD-2-Clause
// Options about objects, devices and migration.
#include "system/vmm/cli-draft.h"
#include "system/vmm/devices.h"
#include "system/vmm/object-options.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

Result<> object(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-object " + value, value, "qom-type"));
    MIG_TRY(const auto type, options.take_required("qom-type"));
    if (type == "help" || options.has("help")) {
        MIG_TRY(draft.print, object_help(type));
        return {};
    }
    return add_object(draft.options, type, options);
}

Result<> device(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-device " + value, value, "driver"));
    MIG_TRY(auto driver, options.take_required("driver"));
    if (driver == "help" || options.has("help")) {
        MIG_TRY(draft.print, device_help(driver));
        return {};
    }
    if (is_disk(driver)) return add_disk(draft, std::move(options));
    MIG_CHECK(check_device_type(driver));
    draft.options.devices.push_back({std::move(driver), std::move(options)});
    return {};
}

Error no_such_global(const std::string& value) {
    return make_error(ErrorKind::Unsupported, "-global {}: not there; only migration.NAME=VALUE",
                      value);
}

// "driver=migration,property=NAME,value=VALUE"
Result<> long_global(Draft& draft, const std::string& value) {
    MIG_TRY(auto options, SubOptions::parse("-global " + value, value));
    MIG_TRY(const std::string driver, options.take_required("driver"));
    if (driver != "migration") return no_such_global(value);
    MIG_TRY(std::string property, options.take_required("property"));
    MIG_TRY(std::string wanted, options.take_required("value"));
    MIG_CHECK(options.finish());
    draft.options.migration_presets.emplace_back(std::move(property), std::move(wanted));
    return {};
}

Result<> global(Draft& draft, const std::string& value) {
    if (value.starts_with("driver=")) return long_global(draft, value);
    constexpr std::string_view kPrefix = "migration.";
    const size_t equals = value.find('=');
    if (!value.starts_with(kPrefix) || equals == std::string::npos) return no_such_global(value);
    draft.options.migration_presets.emplace_back(
        value.substr(kPrefix.size(), equals - kPrefix.size()), value.substr(equals + 1));
    return {};
}

Result<> only_migratable(Draft& draft, const std::string&) {
    draft.options.only_migratable = Options::OnlyMigratable::Yes;
    return {};
}

}  // namespace

void add_object_options(Handlers& handlers) {
    handlers.insert({
        {"object", object},
        {"device", device},
        {"global", global},
        {"only-migratable", only_migratable},
    });
}

}  // namespace ferry::vmm
