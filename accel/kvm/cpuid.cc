// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/cpuid.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr std::string_view kHost = "host";
constexpr std::string_view kMax = "max";
constexpr uint32_t kExtendedLeaves = 0x8000'0000;
constexpr uint32_t kHypervisorLeaves = 0x4000'0000;
constexpr uint32_t kHypervisorBit = uint32_t{1} << 31;  // leaf 1, ecx
constexpr uint32_t kManyCpusBit = uint32_t{1} << 28;    // leaf 1, edx
constexpr uint32_t kCmpLegacyBit = uint32_t{1} << 1;    // leaf 80000001, ecx

// Features whose state KVM keeps outside of what VcpuState reads: nested guests, shadow stacks,
// enclaves, tracing.
constexpr std::string_view kNotMigratable = "vmx svm shstk ibt sgx intel-pt arch-lbr";

// What follows from the VM itself and from what its guest does.
constexpr std::array<std::string_view, 4> kNobodysChoice = {"hypervisor", "osxsave", "ospke", "ht"};

struct NamedModel {
    std::string_view name;
    std::string_view vendor;  // 12 characters
    std::string_view model_name;
    uint32_t family, model, stepping;
    uint32_t max_leaf, max_extended_leaf;
    std::string_view features;
};
constexpr NamedModel kModels[] = {
    {.name = "qemu64",
     .vendor = "AuthenticAMD",
     .model_name = "Ferry virtual CPU, 64-bit (qemu64)",
     .family = 15,
     .model = 107,
     .stepping = 1,
     .max_leaf = 0xd,
     .max_extended_leaf = 0x8000'000a,
     .features = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush "
                 "mmx fxsr sse sse2 pni cx16 x2apic syscall nx lm lahf-lm"},
    {.name = "kvm64",
     .vendor = "GenuineIntel",
     .model_name = "Ferry virtual CPU, 64-bit (kvm64)",
     .family = 15,
     .model = 6,
     .stepping = 1,
     .max_leaf = 0xd,
     .max_extended_leaf = 0x8000'0008,
     .features = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush "
                 "mmx fxsr sse sse2 pni cx16 x2apic syscall nx lm"},
    {.name = "qemu32",
     .vendor = "GenuineIntel",
     .model_name = "Ferry virtual CPU, 32-bit (qemu32)",
     .family = 6,
     .model = 6,
     .stepping = 3,
     .max_leaf = 4,
     .max_extended_leaf = 0x8000'0004,
     .features = "fpu pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 pni x2apic"},
};

kvm_cpuid_entry2* find(CpuidTable& table, uint32_t leaf, uint32_t subleaf = 0) {
    const auto found = std::ranges::find_if(table, [&](const kvm_cpuid_entry2& entry) {
        return entry.function == leaf && entry.index == subleaf;
    });
    return found == table.end() ? nullptr : &*found;
}

kvm_cpuid_entry2& leaf_of(CpuidTable& table, uint32_t leaf, uint32_t subleaf, bool has_subleaves) {
    if (kvm_cpuid_entry2* known = find(table, leaf, subleaf)) return *known;
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = subleaf;
    entry.flags = has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    return table.emplace_back(entry);
}

void erase_leaf(CpuidTable& table, uint32_t leaf) {
    std::erase_if(table, [&](const kvm_cpuid_entry2& e) { return e.function == leaf; });
}

void mask_unmigratable(CpuidTable& table) {
    // The names are a constant of ours.
    const auto words = words_with(kNotMigratable).value_or(std::vector<FeatureWord>());
    for (const FeatureWord& word : words) {
        if (auto* entry = find(table, word.leaf, word.subleaf)) {
            register_of(*entry, word.which) &= ~word.bits;
        }
    }
}

CpuidTable host_table(const CpuidTable& host) {
    CpuidTable table = host;
    mask_unmigratable(table);
    erase_leaf(table, 0xa);   // performance counters: theirs is state that we do not move
    erase_leaf(table, 0x1f);  // 0xb says the same
    return table;
}

// Text of 12 or 48 characters in registers, as CPUID returns it.
uint32_t text_word(std::string_view text, size_t word) {
    std::array<char, 4> bytes{};
    if (word * 4 < text.size()) text.substr(word * 4, 4).copy(bytes.data(), bytes.size());
    return std::bit_cast<uint32_t>(bytes);
}

void put_vendor(kvm_cpuid_entry2& entry, std::string_view vendor) {
    entry.ebx = text_word(vendor, 0);
    entry.edx = text_word(vendor, 1);
    entry.ecx = text_word(vendor, 2);
}

uint32_t signature(const NamedModel& model) {
    constexpr uint32_t kBaseFamilies = 15;
    const uint32_t base = std::min(model.family, kBaseFamilies);
    return model.stepping | (model.model & 0xf) << 4 | base << 8 | (model.model >> 4) << 16 |
           (model.family - base) << 20;
}

void put_model_name(CpuidTable& table, std::string_view name) {
    for (uint32_t i = 0; i < 3; ++i) {
        kvm_cpuid_entry2& entry = leaf_of(table, kExtendedLeaves + 2 + i, 0, false);
        entry.eax = text_word(name, i * 4);
        entry.ebx = text_word(name, i * 4 + 1);
        entry.ecx = text_word(name, i * 4 + 2);
        entry.edx = text_word(name, i * 4 + 3);
    }
}

// The features that both have.
void put_features(CpuidTable& table, const std::vector<FeatureWord>& wanted,
                  const std::vector<FeatureWord>& available) {
    for (const FeatureWord& word : wanted) {
        const auto ours = std::ranges::find_if(
            available, [&](const FeatureWord& other) { return other.same_word(word); });
        const uint32_t bits = ours == available.end() ? 0 : word.bits & ours->bits;
        const bool has_subleaves = word.leaf == 7 || word.leaf == 0xd;
        register_of(leaf_of(table, word.leaf, word.subleaf, has_subleaves), word.which) |= bits;
    }
}

// Leaves that describe the host's physical limits and KVM's own services.
void copy_leaves(CpuidTable& table, const CpuidTable& host, const NamedModel& model) {
    for (const kvm_cpuid_entry2& entry : host) {
        const bool ours = entry.function >= kHypervisorLeaves && entry.function < kExtendedLeaves;
        const bool addresses =
            entry.function == kExtendedLeaves + 8 && model.max_extended_leaf >= entry.function;
        if (!ours && !addresses) continue;
        table.push_back(entry);
        if (addresses) table.back().ebx = table.back().ecx = table.back().edx = 0;
    }
}

Result<CpuModel> named_model(const NamedModel& model, const CpuidTable& host) {
    MIG_TRY(const auto wanted, words_with(model.features), "CPU model '{}'", model.name);
    const auto available = feature_words(host_table(host));
    CpuModel out{.name = std::string(model.name),
                 .cpuid = {},
                 .unavailable = missing_features(wanted, available)};
    kvm_cpuid_entry2& basic = leaf_of(out.cpuid, 0, 0, false);
    basic.eax = model.max_leaf;
    put_vendor(basic, model.vendor);
    leaf_of(out.cpuid, 1, 0, false).eax = signature(model);
    kvm_cpuid_entry2& extended = leaf_of(out.cpuid, kExtendedLeaves, 0, false);
    extended.eax = model.max_extended_leaf;
    put_vendor(extended, model.vendor);
    put_features(out.cpuid, wanted, available);
    put_model_name(out.cpuid, model.model_name);
    copy_leaves(out.cpuid, host, model);
    return out;
}

// --- Single features.

Result<> apply(CpuidTable& table, const FeatureChoice& choice, const CpuidTable& host) {
    MIG_CHECK(check_feature_choice(choice));
    MIG_TRY(const auto words, words_with(choice.name));
    if (choice.shown == FeatureChoice::Shown::Yes) {
        if (missing_features(words, feature_words(host_table(host))).empty()) {
            put_features(table, words, feature_words(host));
            return {};
        }
        const bool there = missing_features(words, feature_words(host)).empty();
        return make_error(
            ErrorKind::Unsupported, "CPU feature '{}': {}", choice.name,
            there ? "what a guest does with it can't be migrated" : "the host does not have it");
    }
    for (const FeatureWord& word : words) {
        if (auto* entry = find(table, word.leaf, word.subleaf)) {
            register_of(*entry, word.which) &= ~word.bits;
        }
    }
    return {};
}

// --- What differs from CPU to CPU.

unsigned id_bits(unsigned count) {
    return static_cast<unsigned>(std::bit_width(count - 1));
}

void put_apic_id(CpuidTable& table, unsigned index, unsigned count) {
    constexpr uint32_t kCacheLine = 8;  // in units of 8 bytes, for clflush
    kvm_cpuid_entry2* entry = find(table, 1);
    if (entry == nullptr) return;
    entry->ebx = index << 24 | (count & 0xff) << 16 | kCacheLine << 8;
    entry->ecx |= kHypervisorBit;
    entry->edx = count > 1 ? entry->edx | kManyCpusBit : entry->edx & ~kManyCpusBit;
}

// Leaf 0xb: level 0 is the thread within its core, level 1 the core within the package.
void put_extended_topology(CpuidTable& table, unsigned index, unsigned count) {
    constexpr uint32_t kThreadLevel = 1 << 8, kCoreLevel = 2 << 8;
    if (find(table, 0xb) == nullptr) return;
    erase_leaf(table, 0xb);
    for (uint32_t level = 0; level < 3; ++level) {
        kvm_cpuid_entry2& entry = leaf_of(table, 0xb, level, true);
        entry.edx = index;
        entry.ecx = level;
        if (level == 0) {
            entry.ebx = 1;
            entry.ecx |= kThreadLevel;
        } else if (level == 1) {
            entry.eax = id_bits(count);
            entry.ebx = count;
            entry.ecx |= kCoreLevel;
        }
    }
}

// Who shares which cache: level 3 and above the package, the others nobody. Intel's leaf 4 and
// AMD's 8000001d have the same layout; only Intel's counts the cores.
void put_caches(CpuidTable& table, unsigned count) {
    constexpr uint32_t kTypeMask = 0x1f, kSharingMask = 0xfffU << 14, kCoresMask = 0x3fU << 26;
    constexpr uint32_t kSharedLevel = 3;
    for (kvm_cpuid_entry2& entry : table) {
        const bool intel = entry.function == 4;
        if (!intel && entry.function != 0x8000'001d) continue;
        if ((entry.eax & kTypeMask) == 0) continue;
        const uint32_t level = entry.eax >> 5 & 0x7;
        const uint32_t sharing = level >= kSharedLevel ? (1U << id_bits(count)) - 1 : 0;
        entry.eax = (entry.eax & ~kSharingMask) | (sharing << 14 & kSharingMask);
        if (!intel) continue;
        entry.eax = (entry.eax & ~kCoresMask) | (((1U << id_bits(count)) - 1) << 26 & kCoresMask);
    }
}

void put_amd_topology(CpuidTable& table, unsigned index, unsigned count) {
    if (auto* sizes = find(table, 0x8000'0008)) {
        sizes->ecx = count > 1 ? (count - 1) | id_bits(count) << 12 : 0;
    }
    if (auto* features = find(table, 0x8000'0001)) {
        features->ecx = count > 1 && find(table, 0x8000'001e) != nullptr
                            ? features->ecx | kCmpLegacyBit
                            : features->ecx & ~kCmpLegacyBit;
    }
    if (auto* topology = find(table, 0x8000'001e)) {
        topology->eax = index;
        topology->ebx = index;  // its core, of one thread
        topology->ecx = 0;      // one node
    }
}

}  // namespace

std::vector<std::string_view> cpu_model_names() {
    std::vector<std::string_view> names{kHost, kMax};
    for (const NamedModel& model : kModels) names.push_back(model.name);
    return names;
}

Result<> check_feature_choice(const FeatureChoice& choice) {
    if (std::ranges::find(kNobodysChoice, choice.name) != kNobodysChoice.end()) {
        return make_error(ErrorKind::Unsupported,
                          "CPU feature '{}' can't be chosen: it follows from the VM", choice.name);
    }
    MIG_TRY(const auto words, words_with(choice.name));
    if (words.size() == 1 && std::has_single_bit(words.front().bits)) return {};
    return make_error(ErrorKind::InvalidArgument, "'{}' is no CPU feature", choice.name);
}

Result<CpuModel> cpu_model(std::string_view name, const CpuidTable& host,
                           std::span<const FeatureChoice> choices) {
    CpuModel model{.name = std::string(name), .cpuid = {}, .unavailable = {}};
    const auto found = std::ranges::find(kModels, name, &NamedModel::name);
    if (found != std::end(kModels)) {
        MIG_TRY(model, named_model(*found, host));
    } else if (name == kHost || name == kMax) {
        model.cpuid = host_table(host);
    } else {
        return make_error(ErrorKind::InvalidArgument, "unknown CPU model '{}'; there are: {}", name,
                          fmt::join(cpu_model_names(), ", "));
    }
    for (const FeatureChoice& choice : choices) MIG_CHECK(apply(model.cpuid, choice, host));
    return model;
}

CpuidTable cpuid_of_vcpu(const CpuidTable& model, unsigned index, unsigned count) {
    CpuidTable table = model;
    put_apic_id(table, index, count);
    put_extended_topology(table, index, count);
    put_caches(table, count);
    put_amd_topology(table, index, count);
    return table;
}

}  // namespace ferry::kvm
