// SPDX-License-Identifier: BSD-2-Clause
// Who runs the guest's CPUs (-accel): the first of those named that can be used here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "accel/kvm/kvm.h"
#include "util/result.h"

namespace ferry::vmm {

enum class AcceleratorKind : uint8_t {
    Kvm,
    Qtest,  // nobody: a test does what a CPU would
};

struct AcceleratorOptions {
    std::string name;
    uint32_t dirty_ring_size = 0;                 // of kvm: entries per CPU; 0: the log instead
    std::optional<AcceleratorKind> kind() const;  // nothing: not one of ours
};

struct Accelerator {
    AcceleratorKind kind = AcceleratorKind::Qtest;
    std::unique_ptr<kvm::Kvm> kvm;  // set with Kvm
};
// How KVM is opened; a test has its own.
using OpenKvm = Result<std::unique_ptr<kvm::Kvm>> (*)();
Result<std::unique_ptr<kvm::Kvm>> open_host_kvm();

// The error has the reason of each of them.
Result<Accelerator> choose_accelerator(std::span<const AcceleratorOptions> wanted,
                                       OpenKvm open_kvm = open_host_kvm);

}  // namespace ferry::vmm
