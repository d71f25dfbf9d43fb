// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/boot-image.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "system/vmm/boot-info.h"
#include "system/vmm/kernel-file.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

constexpr uint16_t kSectorAt = 0x7c00;
constexpr size_t kSectorBytes = 512;
constexpr uint16_t kFirstDisk = 0x80;
// cli; again: hlt; jmp again
constexpr std::array kHalt{std::byte{0xfa}, std::byte{0xf4}, std::byte{0xeb}, std::byte{0xfd}};

// At most `limit` bytes from the file's begin.
Result<std::vector<std::byte>> read_file(const std::string& path, uint64_t limit) {
    MIG_TRY(const UniqueFd file, util::open_file(path, O_RDONLY));
    std::vector<std::byte> bytes;
    constexpr size_t kChunk = 1 << 20;
    while (bytes.size() < limit) {
        const size_t done = bytes.size();
        bytes.resize(std::min<uint64_t>(done + kChunk, limit));
        MIG_TRY(const size_t got,
                util::read_fd(file.borrow(), MutBytes(bytes).subspan(done), "read(" + path + ")"));
        bytes.resize(done + got);
        if (got == 0) break;
    }
    return bytes;
}

kvm::RealModeEntry real_mode_entry() {
    return {.segment = 0, .offset = kSectorAt, .dx = kFirstDisk, .stack = kSectorAt};
}

}  // namespace

BootImage BootImage::nothing() {
    BootImage image;
    image.segments_.push_back(
        {.gpa = kSectorAt, .bytes = {kHalt.begin(), kHalt.end()}, .zeros = 0});
    image.entry_ = real_mode_entry();
    return image;
}

Result<BootImage> BootImage::sector(const std::string& path) {
    MIG_TRY(auto bytes, read_file(path, kSectorBytes), "boot disk '{}'", path);
    if (bytes.size() < kSectorBytes) {
        return make_error(ErrorKind::InvalidArgument,
                          "boot disk '{}': it has {} bytes, which is less than a sector", path,
                          bytes.size());
    }
    BootImage image;
    image.segments_.push_back({.gpa = kSectorAt, .bytes = std::move(bytes), .zeros = 0});
    image.entry_ = real_mode_entry();
    return image;
}

Result<BootImage> BootImage::load(const BootOptions& options) {
    if (!options.disk.empty()) return sector(options.disk);
    if (options.kernel.empty()) return nothing();
    if (options.command_line.size() > kMaxCommandLine) {
        return make_error(ErrorKind::LimitExceeded, "-append: {} bytes; at most {} are accepted",
                          options.command_line.size(), kMaxCommandLine);
    }
    MIG_TRY(const auto file, read_file(options.kernel, kMaxBytes), "-kernel {}", options.kernel);
    MIG_TRY(auto layout, parse_kernel(file), "-kernel {}", options.kernel);
    for (const BootSegment& segment : layout.segments) {
        if (segment.gpa < kBootInfoAt + kBootInfoBytes && segment.end() > kBootInfoAt) {
            return make_error(ErrorKind::Unsupported,
                              "-kernel {}: it wants {:#x}, where its boot information lies",
                              options.kernel, segment.gpa);
        }
    }
    BootImage image;
    image.segments_ = std::move(layout.segments);
    image.protocol_ = layout.protocol;
    image.command_line_ = options.command_line;
    image.entry_ =
        kvm::FlatEntry{.eip = layout.entry,
                       .eax = layout.protocol == BootProtocol::Multiboot ? kMultibootEax : 0,
                       .ebx = kBootInfoAt};
    return image;
}

namespace {

Result<> place_segment(const BootSegment& segment, system::GuestMemory& memory) {
    MIG_CHECK(memory.write(segment.gpa, segment.bytes));
    if (segment.zeros == 0) return {};
    return memory.write(segment.gpa + segment.bytes.size(), std::vector<std::byte>(segment.zeros));
}

}  // namespace

Result<> BootImage::place(system::GuestMemory& memory) const {
    for (const BootSegment& segment : segments_) {
        MIG_CHECK(place_segment(segment, memory), "the guest's first code does not fit its RAM");
    }
    if (protocol_ == BootProtocol::None) return {};
    return place_segment(boot_info(protocol_, memory, command_line_), memory);
}

void BootImage::enter(kvm::VcpuState& cpu) const {
    if (const auto* real = std::get_if<kvm::RealModeEntry>(&entry_)) {
        kvm::enter_real_mode(cpu.regs, cpu.sregs, *real);
    } else {
        kvm::enter_flat_mode(cpu.regs, cpu.sregs, std::get<kvm::FlatEntry>(entry_));
    }
}

}  // namespace ferry::vmm
