// SPDX-License-Identifier: BSD-2-Clause
// What the guest's CPUID instruction answers: a model ("host", "max", or a name) within what the
// host supports, and what differs from CPU to CPU.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "accel/kvm/features.h"
#include "accel/kvm/uapi.h"
#include "util/result.h"

namespace ferry::kvm {

using CpuidTable = std::vector<kvm_cpuid_entry2>;

// The names that cpu_model() takes, "host" and "max" first.
std::vector<std::string_view> cpu_model_names();

struct CpuModel {
    std::string name;
    CpuidTable cpuid;  // the same for every CPU
    // What the model has by its definition and the host cannot give: the guest does not see it.
    std::vector<std::string> unavailable;
};
// One feature ("avx2") that the guest shall see, or not, whatever the model says.
struct FeatureChoice {
    enum class Shown : uint8_t { No, Yes };
    std::string name;
    Shown shown = Shown::Yes;
};
// InvalidArgument for unknown names; Unsupported for what nobody can choose.
Result<> check_feature_choice(const FeatureChoice& choice);
// The same Errors, and Unsupported for a feature that is chosen and the host cannot give: unlike
// what the model has by its definition, somebody asked for it.
Result<CpuModel> cpu_model(std::string_view name, const CpuidTable& host,
                           std::span<const FeatureChoice> choices = {});

// For CPU `index` of `count`: one package of so many cores, one thread each, the APIC's number is
// the CPU's.
CpuidTable cpuid_of_vcpu(const CpuidTable& model, unsigned index, unsigned count);

}  // namespace ferry::kvm
