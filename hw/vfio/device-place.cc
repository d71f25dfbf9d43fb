// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/device-place.h"

#include "util/try.h"

namespace ferry::vfio {

namespace {

bool is_hex(std::string_view text) {
    constexpr std::string_view kHexDigits = "0123456789abcdefABCDEF";
    return text.find_first_not_of(kHexDigits) == std::string_view::npos;
}

// "3b:00.2", the part behind the domain.
bool is_bus_device_function(std::string_view text) {
    return text.size() == 7 && is_hex(text.substr(0, 2)) && text[2] == ':' &&
           is_hex(text.substr(3, 2)) && text[5] == '.' && text[6] >= '0' && text[6] <= '7';
}

}  // namespace

std::string_view last_component(std::string_view path) {
    return path.substr(path.rfind('/') + 1);
}

Result<std::string> sysfs_device_path(std::string_view host) {
    constexpr size_t kDomainLength = 5;  // "0000:"
    constexpr std::string_view kPciDevices = "/sys/bus/pci/devices/";
    if (host.starts_with('/')) {
        while (host.ends_with('/')) host.remove_suffix(1);
        if (!last_component(host).empty()) return std::string(host);
    } else if (is_bus_device_function(host)) {
        return fmt::format("{}0000:{}", kPciDevices, host);
    } else if (host.size() > kDomainLength && host[kDomainLength - 1] == ':' &&
               is_hex(host.substr(0, kDomainLength - 1)) &&
               is_bus_device_function(host.substr(kDomainLength))) {
        return fmt::format("{}{}", kPciDevices, host);
    }
    return make_error(ErrorKind::InvalidArgument,
                      "'{}' is neither a PCI address (0000:3b:00.2) nor a path below /sys", host);
}

}  // namespace ferry::vfio
