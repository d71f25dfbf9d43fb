// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/features.h"

#include <algorithm>
#include <array>
#include <bit>
#include <sstream>

#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr auto kEax = CpuidRegister::Eax;
constexpr auto kEbx = CpuidRegister::Ebx;
constexpr auto kEcx = CpuidRegister::Ecx;
constexpr auto kEdx = CpuidRegister::Edx;

struct WordNames {
    uint32_t leaf;
    uint32_t subleaf;
    CpuidRegister which;
    uint32_t ignored;  // bits that are no features
    std::array<std::string_view, 32> names;
};

constexpr uint32_t bit(unsigned number) {
    return uint32_t{1} << number;
}

// Names as Linux and QEMU spell them. An empty name is a bit that nobody named here: it counts all
// the same.
constexpr WordNames kWords[] = {
    {1,
     0,
     kEdx,
     bit(28),  // more than one CPU in the package
     {"fpu",  "vme",  "de",   "pse", "tsc",  "msr", "pae",   "mce", "cx8",     "apic", "",
      "sep",  "mtrr", "pge",  "mca", "cmov", "pat", "pse36", "pn",  "clflush", "",     "ds",
      "acpi", "mmx",  "fxsr", "sse", "sse2", "ss",  "ht",    "tm",  "ia64",    "pbe"}},
    {1,
     0,
     kEcx,
     bit(27) | bit(31),  // osxsave mirrors CR4; hypervisor
     {"pni",    "pclmulqdq", "dtes64", "monitor",      "ds-cpl", "vmx",    "smx",
      "est",    "tm2",       "ssse3",  "cid",          "",       "fma",    "cx16",
      "xtpr",   "pdcm",      "",       "pcid",         "dca",    "sse4.1", "sse4.2",
      "x2apic", "movbe",     "popcnt", "tsc-deadline", "aes",    "xsave",  "osxsave",
      "avx",    "f16c",      "rdrand", "hypervisor"}},
    {7, 0, kEbx, 0, {"fsgsbase", "tsc-adjust", "sgx",      "bmi1",       "hle",      "avx2",
                     "",         "smep",       "bmi2",     "erms",       "invpcid",  "rtm",
                     "",         "",           "mpx",      "",           "avx512f",  "avx512dq",
                     "rdseed",   "adx",        "smap",     "avx512ifma", "pcommit",  "clflushopt",
                     "clwb",     "intel-pt",   "avx512pf", "avx512er",   "avx512cd", "sha-ni",
                     "avx512bw", "avx512vl"}},
    {7,
     0,
     kEcx,
     bit(4),  // ospke mirrors CR4
     {"",
      "avx512vbmi",
      "umip",
      "pku",
      "ospke",
      "waitpkg",
      "avx512vbmi2",
      "shstk",
      "gfni",
      "vaes",
      "vpclmulqdq",
      "avx512vnni",
      "avx512bitalg",
      "",
      "avx512-vpopcntdq",
      "",
      "la57",
      "",
      "",
      "",
      "",
      "",
      "rdpid",
      "",
      "bus-lock-detect",
      "cldemote",
      "",
      "movdiri",
      "movdir64b",
      "",
      "",
      "pks"}},
    {7,
     0,
     kEdx,
     0,
     {"",
      "",
      "avx512-4vnniw",
      "avx512-4fmaps",
      "fsrm",
      "",
      "",
      "",
      "avx512-vp2intersect",
      "",
      "md-clear",
      "",
      "",
      "",
      "serialize",
      "",
      "tsxldtrk",
      "",
      "",
      "arch-lbr",
      "ibt",
      "",
      "amx-bf16",
      "avx512-fp16",
      "amx-tile",
      "amx-int8",
      "spec-ctrl",
      "stibp",
      "flush-l1d",
      "arch-capabilities",
      "core-capability",
      "ssbd"}},
    {7, 1, kEax, 0, {"",     "",          "", "",         "avx-vnni", "avx512-bf16",
                     "",     "cmpccxadd", "", "",         "fzrm",     "fsrs",
                     "fsrc", "",          "", "",         "",         "",
                     "",     "",          "", "amx-fp16", "",         "avx-ifma"}},
    {7, 1, kEdx, 0, {}},
    {0xd,
     0,
     kEax,
     0,
     {"x87", "sse-state", "avx-state", "bndregs", "bndcsr", "opmask", "zmm-hi256", "hi16-zmm", "",
      "pkru", "", "", "", "", "", "", "", "xtilecfg", "xtiledata"}},
    {0xd, 1, kEax, 0, {"xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd"}},
    {0x40000001,
     0,
     kEax,
     0,
     {"kvmclock",
      "kvm-nopiodelay",
      "kvm-mmu",
      "kvmclock2",
      "kvm-asyncpf",
      "kvm-steal-time",
      "kvm-pv-eoi",
      "kvm-pv-unhalt",
      "",
      "kvm-pv-tlb-flush",
      "kvm-asyncpf-vmexit",
      "kvm-pv-ipi",
      "kvm-poll-control",
      "kvm-pv-sched-yield",
      "kvm-asyncpf-int",
      "kvm-msi-ext-dest-id",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "kvmclock-stable-bit"}},
    {0x80000001, 0, kEdx, 0, {"amd-fpu",  "amd-vme",  "amd-de",  "amd-pse",  "amd-tsc", "amd-msr",
                              "amd-pae",  "amd-mce",  "amd-cx8", "amd-apic", "",        "syscall",
                              "amd-mtrr", "amd-pge",  "amd-mca", "amd-cmov", "amd-pat", "amd-pse36",
                              "",         "",         "nx",      "",         "mmxext",  "amd-mmx",
                              "amd-fxsr", "fxsr-opt", "pdpe1gb", "rdtscp",   "",        "lm",
                              "3dnowext", "3dnow"}},
    {0x80000001,
     0,
     kEcx,
     bit(1),  // cmp-legacy tells of several CPUs
     {"lahf-lm",   "cmp-legacy",  "svm",
      "extapic",   "cr8legacy",   "abm",
      "sse4a",     "misalignsse", "3dnowprefetch",
      "osvw",      "ibs",         "xop",
      "skinit",    "wdt",         "",
      "lwp",       "fma4",        "tce",
      "",          "nodeid-msr",  "",
      "tbm",       "topoext",     "perfctr-core",
      "perfctr-nb"}},
    {0x80000007, 0, kEdx, 0, {"", "", "", "", "", "", "", "", "invtsc"}},
    {0x80000008, 0, kEbx, 0, {"clzero",   "",          "xsaveerptr", "",          "", "",
                              "",         "",          "",           "wbnoinvd",  "", "",
                              "ibpb",     "",          "ibrs",       "amd-stibp", "", "",
                              "",         "",          "",           "",          "", "",
                              "amd-ssbd", "virt-ssbd", "amd-no-ssb"}},
    {0x80000021,
     0,
     kEax,
     0,
     {"no-nested-data-bp", "", "lfence-always-serializing", "", "", "", "null-sel-clr-base"}},
};

const kvm_cpuid_entry2* find_entry(const std::vector<kvm_cpuid_entry2>& cpuid, uint32_t leaf,
                                   uint32_t subleaf) {
    const auto found = std::ranges::find_if(cpuid, [&](const kvm_cpuid_entry2& entry) {
        return entry.function == leaf && entry.index == subleaf;
    });
    return found == cpuid.end() ? nullptr : &*found;
}

std::string feature_name(const FeatureWord& word, unsigned number) {
    for (const WordNames& names : kWords) {
        if (names.leaf != word.leaf || names.subleaf != word.subleaf || names.which != word.which) {
            continue;
        }
        if (!names.names[number].empty()) return std::string(names.names[number]);
    }
    return fmt::format("CPUID {:x}.{:x}.{} bit {}", word.leaf, word.subleaf, to_string(word.which),
                       number);
}

Result<> set_named(std::vector<FeatureWord>& words, std::string_view name) {
    for (const WordNames& names : kWords) {
        const auto found = std::ranges::find(names.names, name);
        if (found == names.names.end()) continue;
        const FeatureWord wanted{names.leaf, names.subleaf, names.which, 0};
        auto word = std::ranges::find_if(
            words, [&](const FeatureWord& other) { return other.same_word(wanted); });
        if (word == words.end()) word = words.insert(words.end(), wanted);
        word->bits |= bit(static_cast<unsigned>(found - names.names.begin()));
        return {};
    }
    return make_error(ErrorKind::InvalidArgument, "unknown CPU feature '{}'", name);
}

}  // namespace

std::string_view to_string(CpuidRegister which) {
    switch (which) {
        case CpuidRegister::Eax: return "eax";
        case CpuidRegister::Ebx: return "ebx";
        case CpuidRegister::Ecx: return "ecx";
        case CpuidRegister::Edx: return "edx";
    }
    return "invalid";
}

Result<CpuidRegister> cpuid_register_from_raw(uint32_t raw) {
    if (raw > static_cast<uint32_t>(CpuidRegister::Edx)) {
        return make_error(ErrorKind::Protocol, "CPUID has no register number {}", raw);
    }
    return static_cast<CpuidRegister>(raw);
}

uint32_t& register_of(kvm_cpuid_entry2& entry, CpuidRegister which) {
    switch (which) {
        case CpuidRegister::Eax: return entry.eax;
        case CpuidRegister::Ebx: return entry.ebx;
        case CpuidRegister::Ecx: return entry.ecx;
        case CpuidRegister::Edx: break;
    }
    return entry.edx;
}

uint32_t register_of(const kvm_cpuid_entry2& entry, CpuidRegister which) {
    kvm_cpuid_entry2 copy = entry;
    return register_of(copy, which);
}

std::vector<FeatureWord> feature_words(const std::vector<kvm_cpuid_entry2>& cpuid) {
    std::vector<FeatureWord> words;
    for (const WordNames& names : kWords) {
        const kvm_cpuid_entry2* entry = find_entry(cpuid, names.leaf, names.subleaf);
        const uint32_t bits = entry == nullptr ? 0 : register_of(*entry, names.which);
        words.push_back({names.leaf, names.subleaf, names.which, bits & ~names.ignored});
    }
    return words;
}

std::vector<std::string> missing_features(const std::vector<FeatureWord>& theirs,
                                          const std::vector<FeatureWord>& host) {
    std::vector<std::string> missing;
    for (const FeatureWord& word : theirs) {
        const auto ours = std::ranges::find_if(
            host, [&](const FeatureWord& other) { return other.same_word(word); });
        uint32_t lacking = word.bits & ~(ours == host.end() ? 0 : ours->bits);
        while (lacking != 0) {
            missing.push_back(feature_name(word, static_cast<unsigned>(std::countr_zero(lacking))));
            lacking &= lacking - 1;
        }
    }
    return missing;
}

Result<std::vector<FeatureWord>> words_with(std::string_view names) {
    std::vector<FeatureWord> words;
    std::istringstream list{std::string(names)};
    for (std::string name; list >> name;) MIG_CHECK(set_named(words, name));
    return words;
}

}  // namespace ferry::kvm
