// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/accelerator.h"

#include <fmt/format.h>

#include <vector>

#include "util/try.h"

namespace ferry::vmm {

std::optional<AcceleratorKind> AcceleratorOptions::kind() const {
    if (name == "kvm") return AcceleratorKind::Kvm;
    if (name == "qtest") return AcceleratorKind::Qtest;
    return std::nullopt;
}

Result<std::unique_ptr<kvm::Kvm>> open_host_kvm() {
    return kvm::Kvm::open();
}

namespace {

Result<Accelerator> try_accelerator(const AcceleratorOptions& wanted, OpenKvm open_kvm) {
    const auto kind = wanted.kind();
    if (!kind) {
        return make_error(ErrorKind::Unsupported, "invalid accelerator; there are kvm and qtest");
    }
    if (*kind == AcceleratorKind::Qtest) return Accelerator{.kind = *kind, .kvm = nullptr};
    auto kvm = open_kvm();
    if (!kvm) return std::move(kvm).error();
    if (wanted.dirty_ring_size != 0) {
        MIG_CHECK((*kvm)->use_dirty_ring(wanted.dirty_ring_size));
    }
    return Accelerator{.kind = *kind, .kvm = std::move(*kvm)};
}

}  // namespace

Result<Accelerator> choose_accelerator(std::span<const AcceleratorOptions> wanted,
                                       OpenKvm open_kvm) {
    std::vector<std::string> reasons;
    for (const AcceleratorOptions& one : wanted) {
        auto usable = try_accelerator(one, open_kvm);
        if (usable) return usable;
        reasons.push_back(fmt::format("-accel {}: {}", one.name, usable.error().message()));
    }
    return make_error(ErrorKind::Unsupported, "no accelerator can be used: {}",
                      fmt::join(reasons, "; "));
}

}  // namespace ferry::vmm
