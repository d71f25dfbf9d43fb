// SPDX-License-Identifier: BSD-2-Clause
// The VM's objects as a tree of paths with properties, which management programs walk: the machine,
// its devices, and what -object and object-add made. Nothing else is in it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/json.h"
#include "util/result.h"

namespace ferry::vmm {

class Objects;
class Vm;

struct QomProperty {
    std::string name;
    std::string type;  // "bool", "str", "child<vfio-pci>"
    monitor::Json value;
    // Null: it can't be changed. Gets what the client sent.
    std::function<Result<>(const monitor::Json&)> set = nullptr;
    // Why it can't be, where that is not "it is read-only": it was decided when the object began.
    enum class Fixed : bool { No, AtStart } fixed = Fixed::No;
    std::string_view other_name = {};  // found by it as well, but not listed; a constant

    bool is_called(std::string_view by) const {
        return by == name || (!other_name.empty() && by == other_name);
    }
};

struct QomNode {
    std::string path;                     // "/machine/peripheral/d0"
    std::string type;                     // "vfio-pci"
    std::vector<QomProperty> properties;  // children among them

    std::string_view name() const;  // the last part of the path
};

// As it is now. Valid until devices or objects come or go.
std::vector<QomNode> qom_tree(Vm& vm, Objects& objects);

enum class QomLookup : uint8_t { Found, Missing, Ambiguous };
struct QomFound {
    QomLookup outcome = QomLookup::Missing;
    const QomNode* node = nullptr;
};
// An absolute path, or its end where that is unique ("d0").
QomFound qom_find(const std::vector<QomNode>& tree, std::string_view path);

}  // namespace ferry::vmm
