// SPDX-License-Identifier: BSD-2-Clause
// Objects that the user created: those of -object, and memory backends that object-add makes while
// the VM lives. The latter are memory that nobody uses yet.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/json.h"
#include "system/memory.h"
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
    // `options` outlives this.
    explicit Objects(const Options& options) : options_(options) {}

    // `properties`: the members of object-add beyond its type and id.
    Result<> add(const std::string& type, const std::string& id, const monitor::Json& properties);
    Result<> remove(const std::string& id);
    std::vector<BackendInfo> backends() const;

    static std::vector<std::string> types();

 private:
    struct Created {
        BackendOptions options;
        std::unique_ptr<system::RamBlock> memory;
    };
    bool exists(const std::string& id) const;

    const Options& options_;
    std::map<std::string, Created> created_;
};

// Letters, digits, '-', '.' and '_', a letter first.
bool is_identifier(std::string_view id);

}  // namespace ferry::vmm
