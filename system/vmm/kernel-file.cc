// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/kernel-file.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::vmm {

namespace {

// The multiboot header, as its specification (version 0.6.96) has it.
constexpr uint32_t kMultibootMagic = 0x1bad'b002;
constexpr size_t kSearchBytes = 8192;
constexpr uint32_t kHasAddresses = 1 << 16;
constexpr uint32_t kWantsVideo = 1 << 2;
// Flags among these must be understood: page-aligned modules (there are none), memory, video.
constexpr uint32_t kMandatoryFlags = 0xffff;
constexpr uint32_t kKnownFlags = 0x3;

// Xen's note with the 32-bit entry point (PVH).
constexpr uint32_t kPvhNote = 18;
constexpr std::string_view kXen = "Xen";
constexpr size_t kMaxProgramHeaders = 64;

Error damaged(std::string_view what) {
    return make_error(ErrorKind::InvalidArgument, "{}", what);
}

// A piece of the file, or an Error where it ends earlier.
Result<ConstBytes> piece(ConstBytes file, uint64_t offset, uint64_t size) {
    if (offset > file.size() || size > file.size() - offset) {
        return damaged("the file ends before what its headers name");
    }
    return file.subspan(offset, size);
}

template <typename T>
Result<T> structure(ConstBytes file, uint64_t offset) {
    MIG_TRY(const auto bytes, piece(file, offset, sizeof(T)));
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
}

Result<BootSegment> segment(ConstBytes file, uint64_t gpa, uint64_t offset, uint64_t file_bytes,
                            uint64_t memory_bytes) {
    if (gpa > UINT32_MAX || memory_bytes > BootImage::kMaxBytes) {
        return damaged("a segment lies above 4 GiB or is larger than 256 MiB");
    }
    MIG_TRY(const auto bytes, piece(file, offset, file_bytes));
    const uint64_t zeros = memory_bytes > file_bytes ? memory_bytes - file_bytes : 0;
    return BootSegment{.gpa = gpa, .bytes = {bytes.begin(), bytes.end()}, .zeros = zeros};
}

// --- Multiboot

struct MultibootHeader {
    size_t offset = 0;  // in the file
    uint32_t flags = 0;
};

std::optional<MultibootHeader> find_multiboot(ConstBytes file) {
    constexpr size_t kHeader = 3 * sizeof(uint32_t);
    const size_t end = std::min(file.size(), kSearchBytes);
    for (size_t at = 0; at + kHeader <= end; at += sizeof(uint32_t)) {
        const uint32_t magic = util::load_le32(file.data() + at);
        const uint32_t flags = util::load_le32(file.data() + at + 4);
        const uint32_t checksum = util::load_le32(file.data() + at + 8);
        if (magic == kMultibootMagic && magic + flags + checksum == 0) return {{at, flags}};
    }
    return std::nullopt;
}

Result<> check_flags(const MultibootHeader& header) {
    if ((header.flags & kWantsVideo) != 0) {
        return make_error(ErrorKind::Unsupported, "the kernel wants a video mode; there is none");
    }
    const uint32_t unknown = header.flags & kMandatoryFlags & ~kKnownFlags;
    if (unknown == 0) return {};
    return make_error(ErrorKind::Unsupported, "unknown multiboot flags {:#x}", unknown);
}

// A flat image: the header says where it goes.
Result<KernelLayout> parse_flat(ConstBytes file, const MultibootHeader& header) {
    if ((header.flags & kHasAddresses) == 0) {
        return damaged("it is no ELF image, and its multiboot header has no addresses");
    }
    constexpr size_t kAddresses = 12;
    constexpr size_t kCount = 5;
    MIG_TRY(const auto raw, piece(file, header.offset + kAddresses, kCount * sizeof(uint32_t)));
    const auto word = [&](size_t i) { return util::load_le32(raw.data() + i * sizeof(uint32_t)); };
    const uint64_t header_at = word(0), load = word(1), load_end = word(2), bss_end = word(3);
    if (header_at < load || header_at - load > header.offset) {
        return damaged("the multiboot header contradicts itself about where it lies");
    }
    const uint64_t offset = header.offset - (header_at - load);
    const uint64_t bytes = load_end == 0 ? file.size() - offset : load_end - load;
    if (load_end != 0 && load_end < load) return damaged("the image ends before it begins");
    const uint64_t end = std::max(bss_end, load + bytes);
    MIG_TRY(auto only, segment(file, load, offset, bytes, end - load));
    KernelLayout layout;
    layout.segments.push_back(std::move(only));
    layout.entry = word(4);
    return layout;
}

// --- ELF, of 32 or 64 bits: both have the same fields under other types.

// The entry of the PVH note in one segment of notes.
std::optional<uint32_t> pvh_entry(ConstBytes notes) {
    constexpr size_t kAlignment = 4;
    const auto aligned = [](uint64_t size) { return (size + kAlignment - 1) & ~(kAlignment - 1); };
    while (notes.size() >= sizeof(Elf32_Nhdr)) {
        Elf32_Nhdr note;
        std::memcpy(&note, notes.data(), sizeof(note));
        const uint64_t value_at = sizeof(note) + aligned(note.n_namesz);
        const uint64_t next = value_at + aligned(note.n_descsz);
        if (value_at + note.n_descsz > notes.size()) return std::nullopt;
        const bool xen = note.n_namesz == kXen.size() + 1 &&
                         std::memcmp(notes.data() + sizeof(note), kXen.data(), kXen.size()) == 0;
        if (xen && note.n_type == kPvhNote && note.n_descsz >= sizeof(uint32_t)) {
            return util::load_le32(notes.data() + value_at);
        }
        if (next >= notes.size()) return std::nullopt;
        notes = notes.subspan(next);
    }
    return std::nullopt;
}

template <typename FileHeader, typename ProgramHeader>
Result<KernelLayout> parse_elf(ConstBytes file) {
    MIG_TRY(const auto header, structure<FileHeader>(file, 0));
    const bool x86 = header.e_machine == EM_386 || header.e_machine == EM_X86_64;
    if (!x86 || header.e_phentsize != sizeof(ProgramHeader)) {
        return damaged("it is no ELF image for x86");
    }
    if (header.e_phnum > kMaxProgramHeaders) {
        return make_error(ErrorKind::LimitExceeded, "{} program headers; at most {} are accepted",
                          header.e_phnum, kMaxProgramHeaders);
    }
    KernelLayout layout;
    std::optional<uint32_t> pvh;
    uint64_t total = 0;
    for (size_t i = 0; i < header.e_phnum; ++i) {
        MIG_TRY(const auto program,
                structure<ProgramHeader>(file, header.e_phoff + i * sizeof(ProgramHeader)));
        if (program.p_type == PT_NOTE) {
            MIG_TRY(const auto notes, piece(file, program.p_offset, program.p_filesz));
            if (!pvh) pvh = pvh_entry(notes);
        }
        if (program.p_type != PT_LOAD || program.p_memsz == 0) continue;
        MIG_TRY(auto loaded, segment(file, program.p_paddr, program.p_offset, program.p_filesz,
                                     program.p_memsz));
        total += loaded.end() - loaded.gpa;
        if (total > BootImage::kMaxBytes) return damaged("its segments exceed 256 MiB");
        layout.segments.push_back(std::move(loaded));
    }
    if (pvh) {
        layout.entry = *pvh;
        layout.protocol = BootProtocol::Pvh;
        return layout;
    }
    const auto multiboot = find_multiboot(file);
    if (!multiboot) return damaged("the ELF image has neither a PVH note nor a multiboot header");
    MIG_CHECK(check_flags(*multiboot));
    if (header.e_entry > UINT32_MAX) return damaged("its entry lies above 4 GiB");
    layout.entry = static_cast<uint32_t>(header.e_entry);
    return layout;
}

}  // namespace

Result<KernelLayout> parse_kernel(ConstBytes file) {
    if (file.size() > EI_CLASS && std::memcmp(file.data(), ELFMAG, SELFMAG) == 0) {
        return std::to_integer<int>(file[EI_CLASS]) == ELFCLASS64
                   ? parse_elf<Elf64_Ehdr, Elf64_Phdr>(file)
                   : parse_elf<Elf32_Ehdr, Elf32_Phdr>(file);
    }
    const auto multiboot = find_multiboot(file);
    if (!multiboot) {
        return make_error(ErrorKind::Unsupported,
                          "neither an ELF image nor one with a multiboot header (a bzImage needs "
                          "firmware, which is not there)");
    }
    MIG_CHECK(check_flags(*multiboot));
    return parse_flat(file, *multiboot);
}

}  // namespace ferry::vmm
