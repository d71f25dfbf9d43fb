// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/memory-slots.h"

#include "util/try.h"

namespace ferry::kvm {

namespace {
// Below the firmware's place at the end of the first 4 GiB, as other hypervisors have it.
constexpr uint64_t kTssAddress = 0xfffb'd000;
constexpr uint64_t kIdentityMapAddress = 0xfffb'c000;

bool page_aligned(uint64_t value) {
    return value % system::kPageSize == 0;
}
}  // namespace

Result<std::vector<MemorySlot>> slots_for(const std::vector<system::RamMapping>& mappings,
                                          unsigned max_slots) {
    if (mappings.size() > max_slots) {
        return make_error(ErrorKind::LimitExceeded, "{} pieces of RAM, but KVM has {} memory slots",
                          mappings.size(), max_slots);
    }
    std::vector<MemorySlot> slots;
    for (const system::RamMapping& mapping : mappings) {
        if (!page_aligned(mapping.gpa) || !page_aligned(mapping.offset) ||
            !page_aligned(mapping.length) || mapping.length == 0) {
            return make_error(ErrorKind::InvalidArgument,
                              "RAM block '{}': {} bytes at {:#x} do not begin and end at pages",
                              mapping.block->name(), mapping.length, mapping.gpa);
        }
        slots.push_back({.id = static_cast<uint32_t>(slots.size()),
                         .gpa = mapping.gpa,
                         .host = mapping.block->host().subspan(mapping.offset, mapping.length)});
    }
    return slots;
}

Result<> set_slot(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot, uint32_t flags) {
    const kvm_userspace_memory_region region{
        .slot = slot.id,
        .flags = flags,
        .guest_phys_addr = slot.gpa,
        .memory_size = slot.host.size(),
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number here
        .userspace_addr = reinterpret_cast<uint64_t>(slot.host.data()),
    };
    MIG_CHECK(
        calls.set(vm, KVM_SET_USER_MEMORY_REGION, &region, "ioctl(KVM_SET_USER_MEMORY_REGION)"),
        "memory slot {}, {} bytes at {:#x}", slot.id, slot.host.size(), slot.gpa);
    return {};
}

Result<> remove_slot(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot) {
    return set_slot(calls, vm, {.id = slot.id, .gpa = slot.gpa, .host = slot.host.first(0)}, 0);
}

Result<> set_tss_address(KernelCalls& calls, BorrowedFd vm) {
    MIG_CHECK(calls.ioctl_value(vm, KVM_SET_TSS_ADDR, kTssAddress, "ioctl(KVM_SET_TSS_ADDR)"));
    uint64_t identity_map = kIdentityMapAddress;
    return calls.set(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map,
                     "ioctl(KVM_SET_IDENTITY_MAP_ADDR)");
}

Result<> get_dirty_log(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot,
                       util::Bitmap& dirty) {
    kvm_dirty_log log{};
    log.slot = slot.id;
    log.dirty_bitmap = dirty.words().data();
    MIG_CHECK(calls.get(vm, KVM_GET_DIRTY_LOG, &log, "ioctl(KVM_GET_DIRTY_LOG)"),
              "memory slot {} at {:#x}", slot.id, slot.gpa);
    return {};
}

Result<> clear_dirty_log(KernelCalls& calls, BorrowedFd vm, const MemorySlot& slot, uint64_t first,
                         uint64_t count, const util::Bitmap& dirty) {
    kvm_clear_dirty_log clear{};
    clear.slot = slot.id;
    clear.first_page = first;
    clear.num_pages = static_cast<uint32_t>(count);
    // The kernel only reads it.
    clear.dirty_bitmap = const_cast<uint64_t*>(dirty.words().subspan(first / 64).data());
    MIG_CHECK(calls.set(vm, KVM_CLEAR_DIRTY_LOG, &clear, "ioctl(KVM_CLEAR_DIRTY_LOG)"),
              "memory slot {} at {:#x}, {} pages from {}", slot.id, slot.gpa, count, first);
    return {};
}

}  // namespace ferry::kvm
