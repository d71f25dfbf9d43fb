// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/entry.h"

namespace ferry::kvm {

namespace {

constexpr uint64_t kFlagsReserved = 1 << 1;  // always set
constexpr uint64_t kCr0ProtectedMode = 1 << 0;
constexpr uint64_t kCr0Paging = uint64_t{1} << 31;
constexpr uint8_t kCodeSegment = 0xb;  // execute, read, accessed
constexpr uint8_t kDataSegment = 0x3;  // read, write, accessed
// Of a GDT that the guest replaces before it loads a segment register.
constexpr uint16_t kFlatCodeSelector = 0x8;
constexpr uint16_t kFlatDataSelector = 0x10;

kvm_segment real_segment(uint16_t selector, uint8_t type) {
    kvm_segment segment{};
    segment.base = uint64_t{selector} << 4;
    segment.limit = 0xffff;
    segment.selector = selector;
    segment.type = type;
    segment.present = 1;
    segment.s = 1;
    return segment;
}

kvm_segment flat_segment(uint16_t selector, uint8_t type) {
    kvm_segment segment{};
    segment.limit = 0xffff'ffff;
    segment.selector = selector;
    segment.type = type;
    segment.present = 1;
    segment.s = 1;
    segment.db = 1;
    segment.g = 1;
    return segment;
}

void set_data_segments(kvm_sregs& sregs, const kvm_segment& segment) {
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment;
}

}  // namespace

void enter_real_mode(kvm_regs& regs, kvm_sregs& sregs, const RealModeEntry& entry) {
    regs = {};
    regs.rip = entry.offset;
    regs.rsp = entry.stack;
    regs.rdx = entry.dx;
    regs.rflags = kFlagsReserved;
    sregs.cs = real_segment(entry.segment, kCodeSegment);
    set_data_segments(sregs, real_segment(0, kDataSegment));
}

void enter_flat_mode(kvm_regs& regs, kvm_sregs& sregs, const FlatEntry& entry) {
    regs = {};
    regs.rip = entry.eip;
    regs.rax = entry.eax;
    regs.rbx = entry.ebx;
    regs.rflags = kFlagsReserved;
    sregs.cs = flat_segment(kFlatCodeSelector, kCodeSegment);
    set_data_segments(sregs, flat_segment(kFlatDataSelector, kDataSegment));
    sregs.cr0 = (sregs.cr0 | kCr0ProtectedMode) & ~kCr0Paging;
}

}  // namespace ferry::kvm
