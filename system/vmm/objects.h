// SPDX-License-Identifier: BSD-2-Clause
// Objects that the user created: those of -object, and memory backends and iommufds that object-add
// makes while the VM lives. Such a backend is memory that nobody uses yet.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "migration/channel.h"
#include "monitor/json.h"
#include "system/memory.h"
#include "system/vmm/iommufds.h"
#include "system/vmm/options.h"
#include "util/result.h"

namespace ferry::vmm {

// A memory backend, as query-memdev tells it.
struct BackendInfo {
    BackendOptions options;
    std::string type;
    enum class Use : bool { None, Ram } use = Use::None;
};

// Main loop thread.
class Objects {
 public:
    // Both outlive this.
    Objects(const Options& options, Iommufds& iommufds) : options_(options), iommufds_(iommufds) {}

    // `properties`: the members of object-add beyond its type and id; `fds`: of who asks.
    Result<> add(const std::string& type, const std::string& id, const monitor::Json& properties,
                 migration::FdTable& fds);
    Result<> remove(const std::string& id);
    std::vector<BackendInfo> backends() const;
    std::vector<const vfio::IommufdHost*> iommufds() const { return iommufds_.all(); }

    static std::vector<std::string> types();

 private:
    struct Created {
        BackendOptions options;
        std::unique_ptr<system::RamBlock> memory;
    };
    bool exists(const std::string& id) const;
    Result<> check_id(const std::string& id) const;
    Result<> add_iommufd(const std::string& id, const monitor::Json& properties,
                         migration::FdTable& fds);

    const Options& options_;
    Iommufds& iommufds_;
    std::map<std::string, Created> created_;
};

// Letters, digits, '-', '.' and '_', a letter first.
bool is_identifier(std::string_view id);

}  // namespace ferry::vmm
