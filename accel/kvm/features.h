// SPDX-License-Identifier: BSD-2-Clause
// CPU features as words of CPUID: what a guest was shown, compared with what a host has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "accel/kvm/uapi.h"
#include "util/result.h"

namespace ferry::kvm {

enum class CpuidRegister : uint8_t { Eax, Ebx, Ecx, Edx };
std::string_view to_string(CpuidRegister which);
Result<CpuidRegister> cpuid_register_from_raw(uint32_t raw);
uint32_t& register_of(kvm_cpuid_entry2& entry, CpuidRegister which);
uint32_t register_of(const kvm_cpuid_entry2& entry, CpuidRegister which);

struct FeatureWord {
    uint32_t leaf = 0;
    uint32_t subleaf = 0;
    CpuidRegister which = CpuidRegister::Eax;
    uint32_t bits = 0;
    bool same_word(const FeatureWord& other) const {
        return leaf == other.leaf && subleaf == other.subleaf && which == other.which;
    }
    bool operator==(const FeatureWord&) const = default;
};

// All words of features that we know of, with their bits in `cpuid` (0 where the leaf is missing).
// Without what is no feature: bits that mirror control registers or differ from CPU to CPU.
std::vector<FeatureWord> feature_words(const std::vector<kvm_cpuid_entry2>& cpuid);

// What `theirs` has and `host` lacks: names ("avx2"), or "CPUID 7.0.ecx bit 5".
std::vector<std::string> missing_features(const std::vector<FeatureWord>& theirs,
                                          const std::vector<FeatureWord>& host);

// The words in which the named features ("fpu sse2 lm") are set. InvalidArgument for unknown names.
Result<std::vector<FeatureWord>> words_with(std::string_view names);

}  // namespace ferry::kvm
