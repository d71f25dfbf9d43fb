// SPDX-License-Identifier: BSD-2-Clause
// What a guest begins with, since there is no firmware: bytes to be placed in RAM and the registers
// of its first CPU. A value, read from its file once; a reset places it again.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "accel/kvm/entry.h"
#include "accel/kvm/vcpu-state.h"
#include "system/memory.h"
#include "system/vmm/options.h"
#include "util/result.h"

namespace ferry::vmm {

struct BootSegment {
    system::Gpa gpa = 0;
    std::vector<std::byte> bytes;
    uint64_t zeros = 0;  // that follow the bytes
    uint64_t end() const { return gpa + bytes.size() + zeros; }
};

// How a kernel learns of the machine: a structure in RAM that a register points to.
enum class BootProtocol : uint8_t { None, Multiboot, Pvh };

class BootImage {
 public:
    // Largest file and largest piece of RAM that one takes.
    static constexpr uint64_t kMaxBytes = uint64_t{256} << 20;

    // What the options name; where they name nothing, a CPU that halts for ever.
    static Result<BootImage> load(const BootOptions& options);

    // Into RAM. An Error where there is none.
    Result<> place(system::GuestMemory& memory) const;
    void enter(kvm::VcpuState& cpu) const;

 private:
    static BootImage nothing();
    static Result<BootImage> sector(const std::string& path);

    std::vector<BootSegment> segments_;
    std::variant<kvm::RealModeEntry, kvm::FlatEntry> entry_;
    BootProtocol protocol_ = BootProtocol::None;
    std::string command_line_;
};

}  // namespace ferry::vmm
