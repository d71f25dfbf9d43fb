// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/boot-info.h"

#include <algorithm>
#include <span>

#include "util/bytes.h"
#include "util/wire.h"

namespace ferry::vmm {

namespace {

constexpr uint32_t kCommandLineAt = 0x100;  // into the segment
constexpr uint32_t kMemoryMapAt = 0x1000;
constexpr uint32_t kRam = 1;  // the type of a range, in both protocols
constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB;
constexpr uint64_t kLowMemoryEnd = 640 * kKiB;

void put32(std::span<std::byte> at, size_t offset, uint64_t value) {
    util::store_le32(at.data() + offset, static_cast<uint32_t>(value));
}
void put64(std::span<std::byte> at, size_t offset, uint64_t value) {
    util::store_le64(at.data() + offset, value);
}

uint64_t ram_from(const system::GuestMemory& memory, system::Gpa gpa) {
    return memory.lookup(gpa, UINT32_MAX - gpa).bytes.size();
}

// How many ranges fit behind kMemoryMapAt.
std::span<const system::RamMapping> ranges_of(const system::GuestMemory& memory,
                                              size_t entry_bytes) {
    const std::span all(memory.mappings());
    return all.first(std::min(all.size(), (kBootInfoBytes - kMemoryMapAt) / entry_bytes));
}

// Fields by their offset in the multiboot information structure.
void put_multiboot(std::span<std::byte> out, const system::GuestMemory& memory) {
    constexpr size_t kFlags = 0, kLowKiB = 4, kHighKiB = 8, kCommandLine = 16;
    constexpr size_t kMapLength = 44, kMapAddress = 48;
    constexpr uint32_t kHasSizes = 1 << 0, kHasCommandLine = 1 << 2, kHasMap = 1 << 6;
    constexpr size_t kEntryBytes = 24;  // its first word counts the rest
    put32(out, kFlags, kHasSizes | kHasCommandLine | kHasMap);
    put32(out, kLowKiB, std::min(ram_from(memory, 0), kLowMemoryEnd) / kKiB);
    put32(out, kHighKiB, ram_from(memory, kMiB) / kKiB);
    put32(out, kCommandLine, kBootInfoAt + kCommandLineAt);
    size_t at = kMemoryMapAt;
    for (const system::RamMapping& range : ranges_of(memory, kEntryBytes)) {
        put32(out, at, kEntryBytes - sizeof(uint32_t));
        put64(out, at + 4, range.gpa);
        put64(out, at + 12, range.length);
        put32(out, at + 20, kRam);
        at += kEntryBytes;
    }
    put32(out, kMapLength, at - kMemoryMapAt);
    put32(out, kMapAddress, kBootInfoAt + kMemoryMapAt);
}

// Fields by their offset in hvm_start_info.
void put_pvh(std::span<std::byte> out, const system::GuestMemory& memory) {
    constexpr size_t kMagic = 0, kVersion = 4, kCommandLine = 24, kMapAddress = 40;
    constexpr size_t kMapEntries = 48;
    constexpr uint32_t kMagicValue = 0x336e'c578;
    constexpr size_t kEntryBytes = 24;
    put32(out, kMagic, kMagicValue);
    put32(out, kVersion, 1);
    put64(out, kCommandLine, kBootInfoAt + kCommandLineAt);
    put64(out, kMapAddress, kBootInfoAt + kMemoryMapAt);
    const auto ranges = ranges_of(memory, kEntryBytes);
    put32(out, kMapEntries, ranges.size());
    size_t at = kMemoryMapAt;
    for (const system::RamMapping& range : ranges) {
        put64(out, at, range.gpa);
        put64(out, at + 8, range.length);
        put32(out, at + 16, kRam);
        at += kEntryBytes;
    }
}

}  // namespace

BootSegment boot_info(BootProtocol protocol, const system::GuestMemory& memory,
                      const std::string& command_line) {
    static_assert(kCommandLineAt + kMaxCommandLine + 1 <= kMemoryMapAt);
    BootSegment segment{.gpa = kBootInfoAt, .bytes = {}, .zeros = 0};
    segment.bytes.resize(kBootInfoBytes);
    const std::span out(segment.bytes);
    std::ranges::copy(bytes_of(command_line), out.begin() + kCommandLineAt);
    if (protocol == BootProtocol::Multiboot) {
        put_multiboot(out, memory);
    } else {
        put_pvh(out, memory);
    }
    return segment;
}

}  // namespace ferry::vmm
