// SPDX-License-Identifier: BSD-2-Clause
// What -kernel takes and refuses. Images are made here, field by field.
#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>

#include "system/vmm/boot-info.h"
#include "system/vmm/kernel-file.h"
#include "util/wire.h"

namespace ferry::vmm {
namespace {

using Image = std::vector<std::byte>;
constexpr uint32_t kAt = 0x100000;
constexpr uint32_t kMultiboot = 0x1badb002;

void put(Image& image, size_t offset, uint32_t value) {
    if (image.size() < offset + sizeof(value)) image.resize(offset + sizeof(value));
    util::store_le32(image.data() + offset, value);
}

// A header at offset 4 with addresses, then two words of code.
Image flat(uint32_t flags = 1 << 16) {
    Image image;
    const uint32_t words[] = {0x11111111, kMultiboot, flags,     0U - kMultiboot - flags,
                              kAt + 4,    kAt,        0,         kAt + 0x1000,
                              kAt + 36,   0x90909090, 0xf4f4f4f4};
    for (size_t i = 0; i < std::size(words); ++i) put(image, 4 * i, words[i]);
    return image;
}

template <typename T>
void append(Image& image, const T& value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    image.insert(image.end(), bytes, bytes + sizeof(value));
}

// One segment of 16 bytes and 8 zeros; its first 12 are `note` or a multiboot header.
template <typename FileHeader, typename ProgramHeader>
Image elf(unsigned char elf_class, bool pvh) {
    FileHeader header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = elf_class;
    header.e_machine = EM_386;
    header.e_entry = kAt + 12;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(ProgramHeader);
    header.e_phnum = 2;
    const size_t data = sizeof(header) + 2 * sizeof(ProgramHeader);
    ProgramHeader load{};
    load.p_type = PT_LOAD;
    load.p_offset = data;
    load.p_paddr = kAt;
    load.p_filesz = 16;
    load.p_memsz = 24;
    ProgramHeader notes{};
    notes.p_type = PT_NOTE;
    notes.p_offset = data + 16;
    notes.p_filesz = pvh ? 20 : 0;
    Image image;
    append(image, header);
    append(image, load);
    append(image, notes);
    for (const uint32_t word : {kMultiboot, 0U, 0U - kMultiboot, 0xf4f4f4f4U}) append(image, word);
    if (pvh) {
        // Sizes of name and value, Xen's number, "Xen", the entry.
        for (const uint32_t word : {4U, 4U, 18U, 0x006e6558U, kAt + 4}) append(image, word);
    }
    return image;
}

TEST(KernelFile, FlatImageGoesWhereItsHeaderSays) {
    const auto layout = parse_kernel(flat());
    ASSERT_TRUE(layout) << layout.error().message();
    EXPECT_EQ(layout->entry, kAt + 36);
    ASSERT_EQ(layout->segments.size(), 1U);
    EXPECT_EQ(layout->segments[0].gpa, kAt);
    EXPECT_EQ(layout->segments[0].bytes.size(), 44U);
    EXPECT_EQ(layout->segments[0].end(), kAt + 0x1000);
}

TEST(KernelFile, ElfWithMultibootHeaderBeginsAtItsEntry) {
    const auto layout = parse_kernel(elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, false));
    ASSERT_TRUE(layout) << layout.error().message();
    EXPECT_EQ(layout->entry, kAt + 12);
    EXPECT_EQ(layout->protocol, BootProtocol::Multiboot);
    EXPECT_EQ(layout->segments.at(0).zeros, 8U);
}

TEST(KernelFile, PvhNoteWinsInBothClasses) {
    for (const auto& image : {elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, true),
                              elf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, true)}) {
        const auto layout = parse_kernel(image);
        ASSERT_TRUE(layout) << layout.error().message();
        EXPECT_EQ(layout->entry, kAt + 4);
        EXPECT_EQ(layout->protocol, BootProtocol::Pvh);
    }
}

TEST(KernelFile, WhatCannotBeLoadedIsRefused) {
    EXPECT_FALSE(parse_kernel({}));
    EXPECT_FALSE(parse_kernel(Image(8192)));
    EXPECT_NE(parse_kernel(flat(1 << 16 | 1 << 2)).error().message().find("video"),
              std::string::npos);
    EXPECT_NE(parse_kernel(flat(1 << 16 | 1 << 5)).error().message().find("0x20"),
              std::string::npos);
    EXPECT_NE(parse_kernel(flat(0)).error().message().find("addresses"), std::string::npos);
}

// Every cut is refused or loads what is there; under the sanitizers, nothing beyond is read.
TEST(KernelFile, TruncatedAnywhereIsNoHarm) {
    for (const auto& image : {flat(), elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, true),
                              elf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, true)}) {
        for (size_t size = 0; size < image.size(); ++size) {
            const Image cut(image.begin(), image.begin() + static_cast<ptrdiff_t>(size));
            const auto layout = parse_kernel(cut);
            if (!layout) continue;
            for (const BootSegment& segment : layout->segments) {
                EXPECT_LE(segment.bytes.size(), cut.size());
            }
        }
    }
}

TEST(KernelFile, HugeNumbersAreRefused) {
    Image image = elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, false);
    constexpr size_t kFields[] = {offsetof(Elf32_Phdr, p_offset), offsetof(Elf32_Phdr, p_filesz),
                                  offsetof(Elf32_Phdr, p_memsz)};
    for (const size_t field : kFields) {
        Image broken = image;
        put(broken, sizeof(Elf32_Ehdr) + field, 0xffff'fff0U);
        EXPECT_FALSE(parse_kernel(broken)) << field;
    }
}

TEST(BootInfo, KernelsLearnOfRamAndTheirCommandLine) {
    system::GuestMemory memory;
    auto* block = memory.add_block(system::RamBlock::create_memfd("ram", 4 << 20).value()).value();
    ASSERT_TRUE(memory.map(*block, 0, 0, 4 << 20));
    const BootSegment multiboot = boot_info(BootProtocol::Multiboot, memory, "a=b");
    const auto word = [](const BootSegment& segment, size_t at) {
        return util::load_le32(segment.bytes.data() + at);
    };
    EXPECT_EQ(word(multiboot, 4), 640U);
    EXPECT_EQ(word(multiboot, 8), 3U * 1024);
    const size_t line = word(multiboot, 16) - kBootInfoAt;
    EXPECT_EQ(word(multiboot, line), 0x623d61U);  // "a=b" and its end
    EXPECT_EQ(word(multiboot, 44), 24U);
    const BootSegment pvh = boot_info(BootProtocol::Pvh, memory, "");
    EXPECT_EQ(word(pvh, 0), 0x336ec578U);
    EXPECT_EQ(word(pvh, 48), 1U);
    EXPECT_EQ(word(pvh, word(pvh, 40) - kBootInfoAt + 8), 4U << 20);
}

}  // namespace
}  // namespace ferry::vmm
